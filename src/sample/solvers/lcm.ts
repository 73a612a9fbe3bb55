/**
 * Few steps with a network that was distilled to jump to the image (Luo et al. 2023, latent
 * consistency models; Song et al. 2023): jump, add noise again, jump from there. With any other
 * network its images are blurred.
 *
 * @module
 */

import { combine, indexOf, type Solver } from "../solver.ts";

/** Timesteps are so much larger, and data have so much deviation, where x is left as it is. */
const SCALING = 10, DATA = 0.5;

/** Jumps of consistency models. */
export const lcm: Solver = {
  name: "lcm",
  summary: "few steps of networks distilled for them, Luo et al. 2023",
  ...{ order: 1, evaluations: 1, isStochastic: true },
  ...{ kind: "integer", isUneven: true, takesZeroSnr: true, takes: [] },
  defaults: { spacing: "trailing", steps: 4 },
  plan: (steps, schedule) =>
    steps.map(({ from }, i) => {
      const to = steps[i + 1]?.from ?? schedule.levelAt(-1);
      // At t = 0 there is nothing to do, so that the jump begins with x itself.
      const t = indexOf(from, schedule) * SCALING, skip = DATA ** 2 / (t ** 2 + DATA ** 2);
      const image = { x: skip, sample: t / Math.hypot(t, DATA) };
      return {
        at: from,
        next: { x: combine([to.alpha, image], [to.sigma, { noise: 1 }]) },
      };
    }),
};
