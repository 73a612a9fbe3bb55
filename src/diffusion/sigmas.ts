/**
 * Sequences of noise levels σ of x_0 + σ ε, the largest first, as samplers visit them.
 *
 * @module
 */

/** `steps` numbers from 0 to 1. */
const ramp = (steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => steps === 1 ? 0 : i / (steps - 1));

/**
 * Evenly spaced in σ^(1/ρ): dense at the small ones (Karras et al. 2022, equation 5).
 *
 * @param steps How many, at least 1; one is `max`.
 * @param min The last, above 0.
 * @param max The first, finite.
 *
 * @example
 * ```ts
 * import { karrasSigmas } from "@x/ddpm";
 *
 * console.log(karrasSigmas(3, 0.002, 80)); // [80, 2.5..., 0.002]
 * ```
 */
export function karrasSigmas(steps: number, min: number, max: number, rho = 7): number[] {
  const from = max ** (1 / rho), to = min ** (1 / rho);
  return ramp(steps).map((u) => (from + u * (to - from)) ** rho);
}

/**
 * Evenly spaced in log σ.
 *
 * @example
 * ```ts
 * import { exponentialSigmas } from "@x/ddpm";
 *
 * console.log(exponentialSigmas(4, 0.001, 1)); // [1, 0.1, 0.01, 0.001], about
 * ```
 */
export function exponentialSigmas(steps: number, min: number, max: number): number[] {
  return polyexponentialSigmas(steps, min, max, 1);
}

/**
 * Evenly spaced in log σ but for the power ρ of the place: above 1, dense at the small ones.
 *
 * @example
 * ```ts
 * import { polyexponentialSigmas } from "@x/ddpm";
 *
 * console.log(polyexponentialSigmas(3, 0.0001, 1, 2)); // [1, 0.001, 0.0001], about
 * ```
 */
export function polyexponentialSigmas(
  steps: number,
  min: number,
  max: number,
  rho = 1,
): number[] {
  return ramp(steps).map((u) => min * (max / min) ** ((1 - u) ** rho));
}

/**
 * Evenly spaced in the time of the variance-preserving process in continuous time, from 1 to `eps`
 * (Song et al. 2021): σ(t)² = exp(t² β_d / 2 + t β_min) - 1.
 *
 * @example
 * ```ts
 * import { vpSigmas } from "@x/ddpm";
 *
 * console.log(vpSigmas(3)[0]); // 152.1..., the noise of a VP process at its end
 * ```
 */
export function vpSigmas(steps: number, betaD = 19.9, betaMin = 0.1, eps = 1e-3): number[] {
  return ramp(steps).map((u) => {
    const t = 1 + u * (eps - 1);
    return Math.sqrt(Math.expm1(t ** 2 * betaD / 2 + t * betaMin));
  });
}
