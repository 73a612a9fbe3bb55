/**
 * Ancestral sampling (Ho et al. 2020, algorithm 2), strided as in Nichol and Dhariwal 2021: every
 * step draws from the Gaussian q(x_s | x_t, x_0) at the estimated x_0.
 *
 * @module
 */

import type { NoiseSchedule } from "../../diffusion/schedule.ts";
import { type Evaluation, indexOf, type Solver, type Step } from "../solver.ts";

/** The method of the DDPM paper. */
export const ddpm: Solver = {
  name: "ddpm",
  summary: "ancestral sampling, Ho et al. 2020",
  ...{ order: 1, evaluations: 1, isStochastic: true },
  ...{ kind: "integer", isUneven: true, takesZeroSnr: true, takes: [] },
  plan: (steps, schedule) => steps.map((step) => evaluate(step, schedule)),
};

function evaluate({ from, to }: Step, schedule: NoiseSchedule): Evaluation {
  // Every operation is rounded as diffusers rounds it: a thousand steps amplify the last bits. The
  // noise levels of EDM and of flows are finer than that.
  const { config } = schedule, isFine = /^(edm|flow)$/.test(config.betaSchedule);
  const f = isFine ? (x: number) => x : Math.fround;
  const bar = f(from.alpha ** 2), previous = f(to.alpha ** 2);
  const rest = f(1 - bar), previousRest = f(1 - previous);
  // β of the long step, which is the schedule's own where no step is left out.
  const alpha = f(bar / previous), beta = f(1 - alpha);
  const posterior = Math.max(f(f(previousRest / rest) * beta), 1e-20);
  const deviation = {
    fixed_small: () => Math.sqrt(posterior),
    fixed_small_log: () => Math.exp(f(0.5 * f(Math.log(posterior)))),
    fixed_large: () => Math.sqrt(beta),
    fixed_large_log: () => Math.exp(f(0.5 * f(Math.log(beta)))),
    learned_range: () => 1,
  }[config.varianceType];
  return {
    at: from,
    next: {
      x: {
        sample: f(f(f(Math.sqrt(previous)) * beta) / rest),
        x: f(f(f(Math.sqrt(alpha)) * previousRest) / rest),
        noise: to.alpha === 1 && indexOf(from, schedule) === 0 ? 0 : deviation(),
      },
    },
    ...(config.varianceType === "learned_range"
      ? { range: [Math.log(posterior), Math.log(beta)] }
      : {}),
  };
}
