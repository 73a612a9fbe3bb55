/**
 * DDIM (Song, Meng and Ermon 2021, equation 12): x_s = √ᾱ_s x_0 + √(1 - ᾱ_s - σ²) ε + σ noise, with
 * σ = η √((1 - ᾱ_s) / (1 - ᾱ_t) · (1 - ᾱ_t / ᾱ_s)).
 *
 * @module
 */

import type { NoiseLevel, NoiseSchedule } from "../../diffusion/schedule.ts";
import { combine, noiseIn, type Solver, type Weights } from "../solver.ts";

/** Where the last step leads. */
export const endOf = (to: NoiseLevel, schedule: NoiseSchedule): NoiseLevel =>
  to.sigma === 0 && !schedule.config.setAlphaToOne ? schedule.levelAt(0) : to;

/** The method, with ε as the network says it or as it follows from the clipped x_0. */
export const makeDdim = (usesClipped: boolean): Solver => ({
  name: "ddim",
  summary: "without noise, or with a share of it (eta), Song et al. 2021",
  ...{ order: 1, evaluations: 1, isStochastic: false },
  ...{ kind: "integer", isUneven: true, takesZeroSnr: true, takes: ["eta"] },
  plan: (steps, schedule, { eta = 0 }) =>
    steps.map(({ from, to: next }) => {
      const to = endOf(next, schedule), bar = from.alpha ** 2, previous = to.alpha ** 2;
      const variance = (1 - previous) / (1 - bar) * (1 - bar / previous);
      const sigma = eta * Math.sqrt(Math.max(variance, 0));
      const epsilon: Weights = usesClipped ? noiseIn(from) : { epsilon: 1 };
      const rest = Math.sqrt(Math.max(1 - previous - sigma ** 2, 0));
      const mean = combine([to.alpha, { sample: 1 }], [rest, epsilon]);
      return { at: from, next: { x: { ...mean, noise: sigma } } };
    }),
});

/** The deterministic method of DDIM, or with `eta` above 0 anything up to ancestral sampling. */
export const ddim: Solver = makeDdim(false);
