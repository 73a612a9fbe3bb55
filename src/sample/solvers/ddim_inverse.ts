/**
 * DDIM backwards, from images to the noise that it would make them of: x_t follows from x_s with the
 * ε at t, which is unknown as long as x_t is. It is asked for at x_s, and then once more at the x_t
 * that follows (a fixed-point iteration, Pan et al. 2023). What a schedule clips on the way to images
 * does not lead back: `ddim` returns the images with `clip_sample` false only.
 *
 * @module
 */

import { endOf } from "./ddim.ts";
import type { Evaluation, Solver } from "../solver.ts";

/** Evaluations of the network a step. */
const ITERATIONS = 2;

/** The way back. */
export const ddimInverse: Solver = {
  name: "ddim_inverse",
  summary: "from images to the noise that ddim makes them of, Song et al. 2021",
  ...{ order: 1, evaluations: ITERATIONS, isStochastic: false },
  ...{ kind: "integer", isUneven: true, takesZeroSnr: false, takes: [] },
  isInverse: true,
  plan: (steps, schedule) =>
    steps.toReversed().flatMap(({ from: at, to }): Evaluation[] => {
      const start = endOf(to, schedule), alpha = at.alpha / start.alpha;
      const epsilon = at.sigma - start.sigma * alpha;
      return Array.from({ length: ITERATIONS }, (_, i) => ({
        at,
        next: i ? { x: { start: alpha, epsilon } } : { x: { x: alpha, epsilon }, start: { x: 1 } },
        endsStep: i === ITERATIONS - 1,
      }));
    }),
};
