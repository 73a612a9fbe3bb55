/**
 * The Gauss error function in single precision, as all targets compute it.
 *
 * @module
 */

/**
 * erf x is x P(x²) / Q(x²) within 2.5e-8 of its value for x up to `limit`, and beyond rounds to ±1 in
 * single precision: coefficients of P and Q, the constant ones first. They were fitted to the relative
 * error by least squares with weights that even it out (Lawson).
 */
export const erfQuotient = {
  limit: 4,
  numerator: [
    ...[1.1283791065216064, 0.19354422390460968, 0.053101394325494766, 0.0038832267746329308],
    ...[0.0002845500421244651, 0.0000019866283764713444],
  ],
  denominator: [
    ...[1, 0.5048566460609436, 0.1153494343161583, 0.015207046642899513, 0.0011855167103931308],
    0.00003741772161447443,
  ],
} as const;
