/**
 * DPM-Solver-2 in the form of Karras et al. 2022: the slope halfway, in the logarithm of σ, is that
 * of the whole step. With fresh noise it is the ancestral variant of k-diffusion.
 *
 * @module
 */

import type { NoiseSchedule } from "../../diffusion/schedule.ts";
import { splitNoise } from "./euler_ancestral.ts";
import {
  combine,
  type Evaluation,
  ratioOf,
  type Solver,
  type Step,
  straight,
  type Traits,
  type Weights,
} from "../solver.ts";

/** From `from` to `to` by way of the middle, and to the scale of `alpha` with some noise. */
function midpoint(
  { from, to }: Step,
  schedule: NoiseSchedule,
  alpha: number,
  noise: Weights,
): Evaluation[] {
  const between = schedule.levelOf(Math.sqrt(ratioOf(from) * ratioOf(to)));
  const across = (ratioOf(to) - ratioOf(from)) / ratioOf(between);
  const whole = combine(
    [alpha / from.alpha, { start: 1 }],
    [alpha * across, { x: 1 / between.alpha, sample: -1 }],
    [1, noise],
  );
  const start = { x: straight({ from, to: between }), start: { x: 1 } };
  return [{ at: from, next: start, endsStep: false }, { at: between, next: { x: whole } }];
}

const last = (step: Step): Evaluation => ({ at: step.from, next: { x: straight(step) } });

const traits: Traits = {
  ...{ order: 2, evaluations: 2, isStochastic: false },
  ...{ kind: "continuous", isUneven: true, takesZeroSnr: false, takes: [] },
  defaults: { spacing: "linspace" },
};

/** The midpoint method. */
export const dpm2: Solver = {
  name: "dpm_2",
  summary: "midpoint method, DPM-Solver-2, Lu et al. 2022",
  ...traits,
  plan: (steps, schedule) =>
    steps.flatMap((step) =>
      step.to.sigma ? midpoint(step, schedule, step.to.alpha, {}) : last(step)
    ),
};

/** The midpoint method with fresh noise. */
export const dpm2Ancestral: Solver = {
  name: "dpm_2_ancestral",
  summary: "the midpoint method with fresh noise at every step",
  ...traits,
  isStochastic: true,
  plan: (steps, schedule) =>
    steps.flatMap((step) => {
      const { down, up } = splitNoise(step), to = { from: step.from, to: down };
      return up ? midpoint(to, schedule, step.to.alpha, { noise: up }) : last(step);
    }),
};
