/**
 * Euler's method to less noise than wanted, and fresh noise for the rest, so that x_s has the
 * variance of the posterior given x_0: ancestral sampling at noise levels that need not be
 * timesteps.
 *
 * @module
 */

import type { NoiseLevel } from "../../diffusion/schedule.ts";
import { combine, type Solver, type Step, straight } from "../solver.ts";

/** The share of σ that is left after a step, and the noise to add, for x_0 + σ ε. */
export function splitNoise({ from, to }: Step): { down: NoiseLevel; up: number } {
  // From σ to s: s² / σ is left, and √(s² - s⁴/σ²) is new.
  const ratio = to.sigma * from.alpha / (from.sigma * to.alpha), sigma = ratio * to.sigma;
  const norm = Math.hypot(to.alpha, sigma);
  return {
    down: { time: to.time, alpha: to.alpha / norm, sigma: sigma / norm },
    up: to.sigma * Math.sqrt(Math.max(1 - ratio ** 2, 0)),
  };
}

/** Euler's method with fresh noise. */
export const eulerAncestral: Solver = {
  name: "euler_ancestral",
  summary: "Euler's method with fresh noise at every step",
  ...{ order: 1, evaluations: 1, isStochastic: true },
  ...{ kind: "continuous", isUneven: true, takesZeroSnr: true, takes: [] },
  defaults: { spacing: "linspace" },
  plan: (steps) =>
    steps.map(({ from, to }) => {
      const { down, up } = splitNoise({ from, to });
      const mean = combine([to.alpha / down.alpha, straight({ from, to: down })]);
      return { at: from, next: { x: { ...mean, noise: up } } };
    }),
};
