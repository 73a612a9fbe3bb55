/**
 * Integrals of polynomials through earlier estimates: what multistep solvers are made of.
 *
 * @module
 */

/** Coefficients of the Lagrange polynomials of some nodes, each from the constant term up. */
function lagrange(nodes: readonly number[]): number[][] {
  return nodes.map((node, j) =>
    nodes.reduce((p, other, k) => {
      if (k === j) return p;
      // p · (u - other) / (node - other)
      const scale = 1 / (node - other), product = new Array<number>(p.length + 1).fill(0);
      p.forEach((c, i) => {
        product[i] -= c * other * scale;
        product[i + 1] += c * scale;
      });
      return product;
    }, [1])
  );
}

/** Weights of values at nodes that integrate the polynomial through them, given ∫uᵏ. */
const weigh = (nodes: readonly number[], moments: readonly number[]): number[] =>
  lagrange(nodes).map((p) => p.reduce((sum, c, k) => sum + c * moments[k], 0));

/** Weights of values at nodes for the integral over [from, to] of the polynomial through them. */
export function polynomialWeights(nodes: readonly number[], from: number, to: number): number[] {
  // From the first node on, which is near: powers of large numbers would cancel.
  const [a, b] = [from - nodes[0], to - nodes[0]];
  const moments = nodes.map((_, k) => (b ** (k + 1) - a ** (k + 1)) / (k + 1));
  return weigh(nodes.map((node) => node - nodes[0]), moments);
}

/**
 * Weights of values at nodes for ∫ κ e^(κ (u - h)) p(u) du over [0, h], p the polynomial through
 * them (Hochbruck and Ostermann 2010): exponential integrators. Their sum is 1 - e^(-κ h).
 */
export function exponentialWeights(kappa: number, h: number, nodes: readonly number[]): number[] {
  const moments = [-Math.expm1(-kappa * h)];
  for (let k = 1; k < nodes.length; k++) moments.push(h ** k - k / kappa * moments[k - 1]);
  return weigh(nodes, moments);
}
