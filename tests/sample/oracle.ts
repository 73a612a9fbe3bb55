/**
 * Networks that know the answer, for tests of sampling methods: in numbers, as plans are made of, and
 * in 32-bit tensors.
 *
 * @module
 */

import * as e from "../../src/gpu/expression.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { gather } from "../../src/gpu/ops/gather.ts";
import { map } from "../../src/gpu/ops/map.ts";
import { randomNormal } from "../../src/gpu/ops/random.ts";
import { reshape, slice } from "../../src/gpu/ops/view.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { denoiserFrom, limited } from "../../src/diffusion/denoiser.ts";
import { targetOf } from "../../src/diffusion/prediction.ts";
import {
  type NoiseLevel,
  NoiseSchedule,
  type ScheduleConfig,
} from "../../src/diffusion/schedule.ts";
import type { MethodOptions } from "../../src/sample/options.ts";
import type { Solver, Step, UpdateTable, Weights } from "../../src/sample/solver.ts";
import { encodeTable, memoriesOf, samplingStep, tableLayout } from "../../src/sample/step.ts";
import { makeUpdateTable } from "../../src/sample/timesteps.ts";

/** Images whose pixels are normal and independent, so that everything is known of them. */
export const MEAN = 0.3, VARIANCE = 0.25;

/** A value as a sum: of 1, of the noise at the start, and of the noise of each evaluation. */
export type Affine = Float64Array;

/** What a network that knows the images says of x. */
export type Oracle = (x: Affine, level: NoiseLevel) => { sample: Affine; epsilon: Affine };

const shift = (x: Affine, by: number) => x.map((c, i) => i ? c : c + by);

/** The best estimate of x_0 for normal images, and the ε that goes with it. */
export const expected: Oracle = (x, { alpha, sigma }) => {
  const rest = shift(x, -alpha * MEAN), power = alpha ** 2 * VARIANCE + sigma ** 2;
  return {
    sample: shift(rest.map((c) => alpha * VARIANCE / power * c), MEAN),
    epsilon: rest.map((c) => sigma / power * c),
  };
};

/** Where the probability flow leads from x: what a consistency model says. */
export const flowEnd: Oracle = (x, { alpha, sigma }) => {
  const rest = shift(x, -alpha * MEAN), power = Math.sqrt(alpha ** 2 * VARIANCE + sigma ** 2);
  const sample = shift(rest.map((c) => Math.sqrt(VARIANCE) / power * c), MEAN);
  return { sample, epsilon: x.map((c, i) => (c - alpha * sample[i]) / sigma) };
};

/** Follows a plan in double precision. */
export function follow(plan: UpdateTable, start: Affine, oracle: Oracle = expected): Affine {
  const zero = start.map(() => 0), memories: Record<string, Affine> = {};
  let x = start;
  for (const [k, { at, input = { x: 1 }, next, range }] of plan.entries()) {
    const known: Record<string, Affine> = { ...memories, x };
    known.noise = zero.map((_, i) => i === k + 2 ? Math.exp(0.5 * (range?.[1] ?? 0)) : 0);
    const sum = (weights: Weights) => {
      const total = zero.slice();
      for (const [name, weight] of Object.entries(weights)) {
        (known[name] ?? zero).forEach((c, i) => total[i] += weight * c);
      }
      return total;
    };
    known.x = sum(input);
    Object.assign(known, oracle(known.x, at));
    const values = Object.entries(next).map(([name, weights]) => [name, sum(weights)] as const);
    const { x: reached, ...others } = Object.fromEntries(values);
    x = reached;
    Object.assign(memories, others);
  }
  return x;
}

/** Noise to start a plan from. */
export const noiseFor = (plan: UpdateTable): Affine =>
  Float64Array.from({ length: plan.length + 2 }, (_, i) => i === 1 ? 1 : 0);

/** A number, with no noise in it. */
export const fixed = (value: number, plan: UpdateTable): Affine =>
  Float64Array.from({ length: plan.length + 2 }, (_, i) => i ? 0 : value);

/** The mean and the variance of what a sum of noise comes to. */
export function momentsOf(x: Affine): { mean: number; variance: number } {
  return { mean: x[0], variance: x.reduce((sum, c, i) => i ? sum + c * c : 0, 0) };
}

/** The level with a σ in units of the image; the time is log σ, as good as any. */
export function levelWith(sigma: number): NoiseLevel {
  const norm = Math.hypot(1, sigma);
  return { time: Math.log(sigma), alpha: 1 / norm, sigma: sigma / norm };
}

/** A schedule that knows levels beyond its timesteps. */
export class EndlessSchedule extends NoiseSchedule {
  override levelOf(sigma: number): NoiseLevel {
    return levelWith(sigma);
  }
}

/** Steps from one noise to another, as Karras et al. space them. */
export function stepsBetween(steps: number, max: number, min: number): Step[] {
  const place = (i: number) =>
    levelWith((max ** (1 / 7) + i / steps * (min ** (1 / 7) - max ** (1 / 7))) ** 7);
  return Array.from({ length: steps }, (_, i) => ({ from: place(i), to: place(i + 1) }));
}

/** Two images of 3 x 3 with values in [-1, 1]. */
const shape = [2, 3, 3, 1];
export const target: Float32Array<ArrayBuffer> = Float32Array.from(
  { length: 18 },
  (_, i) => Math.sin(5 * i),
);

/**
 * Where a method gets from noise, in single precision, when it asks a network that knows that
 * `target` is what the noise was added to.
 */
export function sampleByOracle(
  config: ScheduleConfig,
  method: Solver,
  steps: number,
  options: MethodOptions = {},
): Float32Array<ArrayBuffer> {
  const plan = makeUpdateTable(method, new NoiseSchedule(config), steps, options);
  const x = input("x", shape), index = input("index", [1], "i32");
  const seed = constant(new Int32Array([1, 2])), first = constant(new Int32Array(1));
  const levels = gather(
    constant(plan.flatMap(({ at: { alpha, sigma } }) => [alpha, sigma]), [plan.length, 2]),
    index,
  );
  const [alpha, sigma] = [0, 1].map((i) => reshape(slice(levels, 1, i, 1), [1, 1, 1, 1]));
  const known = constant(target, shape);
  const random = { seed, first, step: index }, layout = tableLayout(plan);
  const denoiser = limited(denoiserFrom(
    (shown) => {
      // Networks of EDM and of flows see it in another scale.
      const data = config.sigmaData ** 2, isFlow = config.predictionType === "flow_prediction";
      const noisy = config.predictionType === "edm" || isFlow
        ? map([shown, alpha, sigma], (x, a, s) => {
          const edm = () => e.sqrt(e.add(e.mul(s, s), e.mul(e.mul(a, a), data)));
          return e.mul(x, isFlow ? e.add(a, s) : edm());
        })
        : shown;
      const epsilon = map(
        [noisy, known, alpha, sigma],
        (x, known, a, s) => e.div(e.sub(x, e.mul(a, known)), s),
      );
      return targetOf(config, { sample: known, epsilon }, { alpha, sigma });
    },
    { schedule: new NoiseSchedule(config), itemShape: shape.slice(1) },
  ));
  const updates = samplingStep(
    (query) => denoiser.estimate({ ...query, random, conditions: {} }),
    layout,
    { x, index, table: constant(encodeTable(layout, plan), [plan.length, layout.columns.length]) },
    () => randomNormal(shape, random, 1),
  );
  const graph = makeGraph({}, [...updates, [index, map([index], (i) => e.add(i, 1), "i32")]]);
  const state = {
    x: Float32Array.from({ length: 18 }, (_, i) => 2 * Math.cos(7 * i)),
    ...{ sample: new Float32Array(18), health: new Float32Array(1), index: new Int32Array(1) },
    ...Object.fromEntries(memoriesOf(plan).map((name) => [name, new Float32Array(18)])),
  };
  for (let i = 0; i < plan.length; i++) interpret(graph, state, "single");
  return state.x;
}
