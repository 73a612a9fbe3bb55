/**
 * The evaluation of the variational bound as a graph: one timestep a run.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { clamp, map, sub } from "../gpu/ops/map.ts";
import { randomNormal } from "../gpu/ops/random.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import type { Shape } from "../shape.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import { boundTerms } from "../diffusion/vlb.ts";
import { addNoise, askNetwork, estimatesOf } from "../diffusion/prediction.ts";
import type { NoiseSchedule } from "../diffusion/schedule.ts";

/** A network and the noise that it knows. */
export interface Judge {
  readonly schedule: NoiseSchedule;
  /** What it predicts of images `[batch, …]` at times `[batch]`. */
  readonly network: (sample: Tensor, time: Tensor) => Tensor;
}

/** The stream of random numbers that the noise comes from. */
const STREAM = 21;

/**
 * Writes row t = `step` of `terms` `[T, batch]`, and counts on. Estimates of the images are clipped
 * if the schedule says so.
 */
export function boundGraph({ schedule, network }: Judge, shape: Shape): Graph {
  const { config, alphasCumprod } = schedule, steps = alphasCumprod.length, [batch] = shape;
  const images = input("images", shape), step = input("step", [1], "i32");
  const random = { seed: input("seed", [2], "i32"), first: input("first", [1], "i32"), step };
  const levels = Array.from(alphasCumprod, (_, t) => schedule.levelAt(t))
    .flatMap(({ time, alpha, sigma }) => [time, alpha, sigma]);
  const row = gather(constant(levels, [steps, 3]), step);
  const [time, alpha, sigma] = [0, 1, 2].map((i) => reshape(slice(row, 1, i, 1), [1, 1, 1, 1]));
  const level = { alpha, sigma }, x = addNoise(images, randomNormal(shape, random, STREAM), level);
  const times = broadcastTo(reshape(time, [1]), [batch]);
  const { output, variance } = askNetwork(config, x, level, (x) => network(x, times));
  const { sample } = estimatesOf(config, x, output, level), range = config.clipSampleRange;
  const term = boundTerms(schedule, {
    ...{ images, timesteps: broadcastTo(step, [batch]) },
    error: sub(config.clipSample ? clamp(sample, -range, range) : sample, images),
    ...(variance ? { variance } : {}),
  });
  const terms = input("terms", [steps, batch]);
  const rows = constant(Array.from({ length: steps }, (_, t) => t), [steps, 1]);
  const written = map(
    [terms, rows, step, reshape(term, [1, batch])],
    (old, row, step, now) => e.select(e.sub(row, step), old, now),
  );
  return makeGraph({}, [[terms, written], [step, map([step], (t) => e.add(t, 1), "i32")]]);
}
