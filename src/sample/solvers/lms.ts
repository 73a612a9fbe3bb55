/**
 * A linear multistep method for the probability flow: Adams-Bashforth with the uneven steps of the
 * noise levels, of order four as soon as there are four slopes.
 *
 * @module
 */

import { combine, noiseIn, ratioOf, remember, type Solver } from "../solver.ts";
import { polynomialWeights } from "./quadrature.ts";

/** Slopes that are used. */
const ORDER = 4;

/** The multistep method of k-diffusion. */
export const lms: Solver = {
  name: "lms",
  summary: "linear multistep method, from the last four slopes",
  ...{ order: ORDER, evaluations: 1, isStochastic: false },
  ...{ kind: "continuous", isUneven: true, takesZeroSnr: false, takes: [] },
  defaults: { spacing: "linspace" },
  plan: (steps) =>
    steps.map(({ from, to }, i) => {
      // The slope of x_0 + σ ε by σ is ε.
      const slope = noiseIn(from);
      const nodes = Array.from({ length: Math.min(i + 1, ORDER) }, (_, j) => steps[i - j].from);
      const weights = polynomialWeights(nodes.map(ratioOf), ratioOf(from), ratioOf(to));
      const x = combine(
        [to.alpha / from.alpha, { x: 1 }],
        ...weights.map((w, j) => [to.alpha * w, j ? { [`slope${j}`]: 1 } : slope] as const),
      );
      return { at: from, next: { x, ...remember("slope", ORDER - 1, slope) } };
    }),
};
