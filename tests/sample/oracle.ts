/**
 * A network that knows the answer, for tests of sampling methods.
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
import { constant, input, type Tensor } from "../../src/gpu/tensor.ts";
import { targetOf } from "../../src/model/prediction.ts";
import { NoiseSchedule, type ScheduleConfig } from "../../src/model/schedule.ts";
import type { Method, MethodOptions } from "../../src/sample/method.ts";
import { samplingStep } from "../../src/sample/sampler.ts";

/** Two images of 3 x 3 with values in [-1, 1]. */
const shape = [2, 3, 3, 1];
export const target: Float32Array<ArrayBuffer> = Float32Array.from(
  { length: 18 },
  (_, i) => Math.sin(5 * i),
);

/** What a network predicts that knows that `target` is what the noise was added to. */
function predict(config: ScheduleConfig, x: Tensor, t: Tensor): Tensor {
  const { alphasCumprod } = new NoiseSchedule(config), known = constant(target, shape);
  const levels = [...alphasCumprod].flatMap((bar) => [Math.sqrt(bar), Math.sqrt(1 - bar)]);
  const level = gather(constant(levels, [alphasCumprod.length, 2]), map([t], (t) => t, "i32"));
  const [alpha, sigma] = [0, 1].map((i) => reshape(slice(level, 1, i, 1), [2, 1, 1, 1]));
  const epsilon = map(
    [x, known, alpha, sigma],
    (x, known, a, s) => e.div(e.sub(x, e.mul(a, known)), s),
  );
  return targetOf(config, { sample: known, epsilon }, { alpha, sigma });
}

/** Where a method gets from noise when it asks the network that knows, in single precision. */
export function sampleByOracle(
  config: ScheduleConfig,
  method: Method,
  steps: number,
  options: MethodOptions = {},
): Float32Array<ArrayBuffer> {
  const x = input("x", shape), index = input("index", [1], "i32");
  const seed = constant(new Int32Array([1, 2])), first = constant(new Int32Array(1));
  const next = samplingStep(
    config,
    method,
    method.plan(new NoiseSchedule(config), steps, options),
    x,
    index,
    (x, t) => predict(config, x, t),
    () => randomNormal(shape, { seed, first, step: index }, 1),
  );
  const graph = makeGraph({}, [[x, next], [index, map([index], (i) => e.add(i, 1), "i32")]]);
  const state = {
    x: Float32Array.from({ length: 18 }, (_, i) => 2 * Math.cos(7 * i)),
    index: new Int32Array(1),
  };
  for (let i = 0; i < steps; i++) interpret(graph, state, "single");
  return state.x;
}
