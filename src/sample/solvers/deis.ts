/**
 * DEIS (Zhang and Chen 2022), in the form that extrapolates ε in log ρ = log(σ/α): ∫ε dρ is exact
 * for the polynomial through the last estimates.
 *
 * @module
 */

import type { NoiseSchedule } from "../../diffusion/schedule.ts";
import { combine, lambdaOf, noiseIn, remember, type Solver, type Weights } from "../solver.ts";
import { exponentialWeights } from "./quadrature.ts";

/** With more steps than this, lower orders at the end are not needed. */
const FEW_STEPS = 15;

/** The solver that uses so many estimates. */
export const makeDeis = (order: number, lowerOrderFinal = true): Solver => ({
  name: "deis",
  summary: "exponential integrator of the noise, from three estimates, Zhang and Chen 2022",
  ...{ order, evaluations: 1, isStochastic: false },
  ...{ kind: "noZero", isUneven: true, takesZeroSnr: false, takes: [] },
  defaults: { spacing: "linspace" },
  plan: (steps, schedule) =>
    steps.map(({ from, to }, i) => {
      const estimate = noiseOf(from, schedule), n = steps.length;
      const left = lowerOrderFinal && n < FEW_STEPS ? n - i : order;
      const start = lambdaOf(from), h = lambdaOf(to) - start;
      const used = Number.isFinite(h) ? Math.min(order, i + 1, left) : 1;
      const nodes = Array.from({ length: used }, (_, j) => lambdaOf(steps[i - j].from) - start);
      // From ρ = e^-λ to 0, ∫dρ is ρ; the weights are of σ' e^(h - λ) dλ.
      const weights = Number.isFinite(h)
        ? exponentialWeights(-1, h, nodes).map((w) => to.sigma * w)
        : [-to.alpha * from.sigma / from.alpha];
      const x = combine(
        [to.alpha / from.alpha, { x: 1 }],
        ...weights.map((w, j) => [w, j ? { [`last${j}`]: 1 } : estimate] as const),
      );
      const memory = order > 1 ? remember("last", order - 1, estimate) : {};
      return { at: from, next: { x, ...memory } };
    }),
});

/** ε, as it follows from x_0 where that may have been clipped. */
function noiseOf(
  level: Parameters<typeof noiseIn>[0],
  { config }: NoiseSchedule,
): Weights {
  return config.clipSample || config.thresholding ? noiseIn(level) : { epsilon: 1 };
}

/** From three estimates. */
export const deis: Solver = makeDeis(3);
