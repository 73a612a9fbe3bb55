/**
 * Heun's method for the probability flow, with churn (Karras et al. 2022, algorithms 1 and 2):
 * a step of Euler's method, and another one from the same place along the mean of the slopes at
 * both ends. The last step, to the image itself, is of Euler's kind.
 *
 * @module
 */

import type { NoiseLevel, NoiseSchedule } from "../../diffusion/schedule.ts";
import type { MethodOptions } from "../options.ts";
import {
  combine,
  type Evaluation,
  ratioOf,
  type Solver,
  straight,
  type Traits,
  type Weights,
} from "../solver.ts";

/** The level that noise is added up to before a step, and how. */
export function churn(
  from: NoiseLevel,
  schedule: NoiseSchedule,
  steps: number,
  { churn = 0, churnRange: [min, max] = [0, Infinity], churnNoise = 1 }: MethodOptions,
): { from: NoiseLevel; input?: Weights } {
  const sigma = ratioOf(from);
  if (!churn || sigma < min || sigma > max) return { from };
  const more = sigma * (1 + Math.min(churn / steps, Math.SQRT2 - 1));
  const { time, ...level } = schedule.levelOf(more), { alpha } = level;
  const noise = alpha * churnNoise * Math.sqrt(more ** 2 - sigma ** 2);
  return { from: { time, ...level }, input: { x: alpha / from.alpha, noise } };
}

const plan: Solver["plan"] = (steps, schedule, options) =>
  steps.flatMap(({ from: least, to }): Evaluation[] => {
    const { from, ...churned } = churn(least, schedule, steps.length, options);
    const first = { at: from, ...churned };
    if (to.sigma === 0) return [{ ...first, next: { x: straight({ from, to }) } }];
    const ratio = ratioOf(to) / ratioOf(from);
    // x / α + (s - σ) (slope there + slope here) / 2, a slope being (x / α - x_0) / σ.
    const corrected = combine(
      [to.alpha * (1 + ratio) / 2 / from.alpha, { start: 1 }],
      [to.alpha * (1 - ratio) / 2, { guess: 1 }],
      [to.alpha * (1 - 1 / ratio) / 2, { x: 1 / to.alpha, sample: -1 }],
    );
    return [
      {
        ...first,
        next: { x: straight({ from, to }), start: { x: 1 }, guess: { sample: 1 } },
        endsStep: false,
      },
      { at: to, next: { x: corrected } },
    ];
  });

const traits: Traits = {
  ...{ order: 2, evaluations: 2, isStochastic: false },
  ...{ kind: "continuous", isUneven: true, takesZeroSnr: false, takes: ["churn"] },
  defaults: { spacing: "linspace" },
};

/** Heun's method over timesteps, or other noise levels. */
export const heun: Solver = {
  name: "heun",
  summary: "Heun's method, two evaluations a step",
  ...traits,
  plan,
};

/** Heun's method as Karras et al. use it: 18 steps over their noise levels, 35 evaluations. */
export const edm: Solver = {
  name: "edm",
  summary: "Heun's method over Karras' noise levels, 18 steps, Karras et al. 2022",
  ...traits,
  defaults: { spacing: "linspace", sigmas: "karras", steps: 18 },
  plan,
};
