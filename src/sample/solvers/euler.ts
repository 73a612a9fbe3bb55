/**
 * Euler's method for the probability flow, dx/dσ = (x - x_0) / σ of x_0 + σ ε (Karras et al. 2022):
 * DDIM in other words, at noise levels that need not be timesteps.
 *
 * @module
 */

import { type Solver, straight } from "../solver.ts";

/** Straight on. */
export const euler: Solver = {
  name: "euler",
  summary: "Euler's method, Karras et al. 2022",
  ...{ order: 1, evaluations: 1, isStochastic: false },
  ...{ kind: "continuous", isUneven: true, takesZeroSnr: true, takes: [] },
  defaults: { spacing: "linspace" },
  plan: (steps) => steps.map((step) => ({ at: step.from, next: { x: straight(step) } })),
};
