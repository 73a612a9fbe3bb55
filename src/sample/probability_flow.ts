/**
 * The probability-flow ODE (Song et al. 2021) forwards, from images to noise, with the change of
 * their density on the way, as a graph: one evaluation of the network a run.
 *
 * In units of the image, y = x / α and σ that of the noise, it is dy/dσ = ε(y, σ), and the logarithm
 * of the density of y falls by the trace of ε's Jacobian.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { grad } from "../gpu/grad.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map, mul } from "../gpu/ops/map.ts";
import { randomUniform } from "../gpu/ops/random.ts";
import { sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { constant, input } from "../gpu/tensor.ts";
import type { Denoiser, Query } from "../diffusion/denoiser.ts";
import { perItem } from "../diffusion/items.ts";
import type { NoiseSchedule } from "../diffusion/schedule.ts";

/** The streams of random numbers: within bins, and of the signs that estimate the trace. */
export const BIN_STREAM = 22;
const SIGN_STREAM = 23;
/** Steps are evenly spaced in σ^(1/ρ) (Karras et al. 2022, equation 5). */
const RHO = 7;
/** The distance of two bytes. */
const BIN = 1 / 127.5;

/** Evaluations of a step, each at y + `from` times the slope before it. */
const stages = [
  { at: 0, from: 0, weight: 1 / 6 },
  { at: 0.5, from: 0.5, weight: 1 / 3 },
  { at: 0.5, from: 0.5, weight: 1 / 3 },
  { at: 1, from: 1, weight: 1 / 6 },
] as const;
export const FLOW_STAGES: number = stages.length;

/** The least noise and the most at which the network can be asked. */
function rangeOf({ sigmas }: NoiseSchedule): [number, number] {
  return [sigmas[0], sigmas.findLast(Number.isFinite)!];
}

/** A row for each evaluation, after one for the start, at which nothing counts. */
function makeRows(schedule: NoiseSchedule, steps: number): number[][] {
  const [from, to] = rangeOf(schedule).map((sigma) => sigma ** (1 / RHO)),
    step = (to - from) / steps;
  const rows = Array.from(
    { length: steps },
    (_, i) =>
      stages.map(({ at, from: share, weight }, k) => {
        const root = from + (i + at) * step, { time, alpha, sigma } = schedule.levelOf(root ** RHO);
        const rate = RHO * root ** (RHO - 1) * step;
        return [time, alpha, sigma, rate, share, weight, Number(k === stages.length - 1), 0];
      }),
  ).flat();
  return [rows[0].map((x, i) => [3, 4, 5, 6].includes(i) ? 0 : i === 7 ? 1 : x), ...rows];
}

/**
 * The first run puts bytes somewhere in their bins; each further one evaluates the slope. State:
 * `point`, where the step began, `sum`, where it will have gone, `slope`, and `trace` `[batch]`, the
 * integral of the trace.
 */
export function flowGraph(
  { schedule, itemShape, estimate }: Denoiser,
  batch: number,
  conditions: Query["conditions"],
  steps: number,
): Graph {
  const shape = [batch, ...itemShape], rank = itemShape.length;
  const rows = makeRows(schedule, steps), step = input("step", [1], "i32");
  const [images, point, total, slope] = ["images", "point", "sum", "slope"].map((name) =>
    input(name, shape)
  );
  const trace = input("trace", [batch]), zero = constant(new Int32Array([0]));
  const random = { seed: input("seed", [2], "i32"), first: input("first", [1], "i32"), step: zero };
  const row = gather(constant(rows.flat(), [rows.length, rows[0].length]), step);
  const [time, alpha, sigma, rate, share, weight, isLast, isStart] = rows[0].map((_, i) =>
    perItem(reshape(slice(row, 1, i, 1), [1]), rank)
  );
  const y = map([point, slope, share], (y, slope, share) => e.add(y, e.mul(share, slope)));
  const level = { time: broadcastTo(reshape(time, [1]), [batch]), alpha, sigma };
  const { epsilon } = estimate({ x: mul(y, alpha), level, conditions, random });
  const signs = map(
    [randomUniform(shape, random, SIGN_STREAM)],
    (u) => e.select(e.less(u, 0.5), -1, 1),
  );
  const [pulled] = grad(sum(mul(epsilon, signs)), [y]);
  const traces = reshape(sum(mul(pulled, signs), itemShape.map((_, i) => i + 1)), [batch]);

  const start = map(
    [images, randomUniform(shape, random, BIN_STREAM)],
    (x, u) => e.div(e.add(x, e.mul(BIN, e.sub(u, 0.5))), schedule.levelAt(0).alpha),
  );
  const nextSlope = mul(epsilon, rate);
  const moved = map([total, nextSlope, weight], (s, k, w) => e.add(s, e.mul(w, k)));
  const choose = (next: typeof moved) =>
    map([isStart, start, next], (isStart, start, next) => e.select(isStart, start, next));
  const counted = [rate, weight, isStart].map((x) => reshape(x, [1]));
  return makeGraph({}, [
    [point, choose(map([isLast, moved, point], e.select))],
    [total, choose(moved)],
    [slope, nextSlope],
    [
      trace,
      map(
        [trace, traces, ...counted],
        (sofar, t, rate, w, isStart) =>
          e.select(isStart, 0, e.add(sofar, e.mul(e.mul(rate, w), t))),
      ),
    ],
    [step, map([step], (i) => e.add(i, 1), "i32")],
  ]);
}

/** Bits a value of an image that arrived at y = `end`, with this integral of the trace. */
export function flowDensity(
  schedule: NoiseSchedule,
  end: ArrayLike<number>,
  trace: number,
): number {
  const [least, most] = rangeOf(schedule).map((sigma) => schedule.levelOf(sigma).alpha);
  let log = trace + end.length * Math.log(most / least);
  for (let i = 0; i < end.length; i++) {
    log -= ((most * end[i]) ** 2 + Math.log(2 * Math.PI)) / 2;
  }
  return -(log / end.length + Math.log(BIN)) / Math.LN2;
}
