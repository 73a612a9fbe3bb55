/**
 * The evaluation of the variational bound as a graph: one timestep a run.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map, sub } from "../gpu/ops/map.ts";
import { randomNormal } from "../gpu/ops/random.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { constant, input } from "../gpu/tensor.ts";
import { boundTerms } from "../diffusion/vlb.ts";
import { addNoise } from "../diffusion/prediction.ts";
import { type Denoiser, limited, type Query } from "../diffusion/denoiser.ts";
import { meanPerItem, perItem } from "../diffusion/items.ts";
import { guarded } from "./health.ts";

/** The stream of random numbers that the noise comes from. */
const STREAM = 21;

/**
 * Writes row t = `step` of `terms` `[T, batch]`, and counts on. Estimates of the images are limited as
 * the schedule says.
 *
 * @param conditions Their values, `[batch, ...shape]` each.
 */
export function boundGraph(
  denoiser: Denoiser,
  batch: number,
  conditions: Query["conditions"],
): Graph {
  const { schedule, itemShape } = denoiser, { alphasCumprod } = schedule;
  const steps = alphasCumprod.length, shape = [batch, ...itemShape], rank = itemShape.length;
  const images = input("images", shape), step = input("step", [1], "i32");
  const random = { seed: input("seed", [2], "i32"), first: input("first", [1], "i32"), step };
  const levels = Array.from(alphasCumprod, (_, t) => schedule.levelAt(t))
    .flatMap(({ time, alpha, sigma }) => [time, alpha, sigma]);
  const row = gather(constant(levels, [steps, 3]), step);
  const [time, ...both] = [0, 1, 2].map((i) => reshape(slice(row, 1, i, 1), [1]));
  const [alpha, sigma] = both.map((x) => perItem(x, rank));
  const x = addNoise(images, randomNormal(shape, random, STREAM), { alpha, sigma });
  const level = { time: broadcastTo(time, [batch]), alpha, sigma };
  const { sample, epsilon, variance } = limited(denoiser).estimate({
    x,
    level,
    conditions,
    random,
  });
  const term = boundTerms(schedule, {
    ...{ images, timesteps: broadcastTo(step, [batch]) },
    error: sub(sample, images),
    ...(variance ? { variance } : {}),
  });
  const terms = input("terms", [steps, batch]);
  const rows = constant(Array.from({ length: steps }, (_, t) => t), [steps, 1]);
  const written = map(
    [terms, rows, step, reshape(guarded(term, meanPerItem(epsilon)), [1, batch])],
    (old, row, step, now) => e.select(e.sub(row, step), old, now),
  );
  return makeGraph({}, [[terms, written], [step, map([step], (t) => e.add(t, 1), "i32")]]);
}
