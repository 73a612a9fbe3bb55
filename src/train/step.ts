/**
 * A training step as one graph: forward pass, loss, backward pass, gradient clipping, AdamW and the
 * moving average of the weights.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { grad } from "../gpu/grad.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { concat, pack } from "../gpu/ops/concat.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map, sqrt, square, sub } from "../gpu/ops/map.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import { mean, sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { sizeOf } from "../gpu/shape.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import type { UNetConfig } from "../model/config.ts";
import { type ParameterLayout, sourceOf, viewParameters } from "../model/parameters.ts";
import { addNoise, askNetwork, type LevelTensors, targetOf } from "../model/prediction.ts";
import { NoiseSchedule, type ScheduleConfig } from "../model/schedule.ts";
import { unet } from "../model/unet.ts";

/** What one step learns from. */
export interface Batch {
  /** `[batch, height, width, channels]` in [-1, 1]. */
  readonly images: Tensor;
  /** Standard normals of the same shape. */
  readonly noise: Tensor;
  /** `i32` `[batch]` in [0, T). */
  readonly timesteps: Tensor;
  /** `i32` `[batch]`, for networks with classes. */
  readonly labels?: Tensor;
  /** For dropout. */
  readonly random?: RandomState;
}

/** Settings that do not change from step to step. */
export interface OptimizerConfig {
  /** Decay of the moments of the gradient. @default {[0.9, 0.999]} */
  readonly betas: readonly [number, number];
  /** Added to the root of the second moment. @default {1e-8} */
  readonly eps: number;
  /** Share of the weights that a step takes away, times the learning rate. @default {0} */
  readonly weightDecay: number;
  /** Gradients with a larger norm are scaled down to it. @default {1} */
  readonly maxGradNorm: number;
}

/** Numbers that change from step to step, in the order in which the program takes them. */
export interface Rates {
  readonly learningRate: number;
  /** Share of the old average that the moving average of the weights keeps. */
  readonly emaDecay: number;
  /** The number of the step, from 0. */
  readonly step: number;
}

/** Losses and gradient norms are kept on the device for this many steps. */
export const HISTORY = 1024;

/** The program's `rates` for a step. */
export function encodeRates(
  { learningRate, emaDecay, step }: Rates,
  { betas: [beta1, beta2] }: OptimizerConfig,
): number[] {
  const corrections = [1 / (1 - beta1 ** (step + 1)), 1 / Math.sqrt(1 - beta2 ** (step + 1))];
  return [learningRate, emaDecay, ...corrections, step % HISTORY];
}

/**
 * The mean squared error of the predicted noise (Ho et al. 2020, equation 14), or of what else the
 * network predicts.
 */
export function diffusionLoss(
  config: UNetConfig,
  schedule: ScheduleConfig,
  parameters: ReadonlyMap<string, Tensor>,
  { images, noise, timesteps, labels, random }: Batch,
): Tensor {
  const { time, ...level } = levelsOf(schedule, timesteps);
  const { output } = askNetwork(
    schedule,
    addNoise(images, noise, level),
    level,
    (sample) =>
      unet(config, sourceOf(parameters), {
        ...{ sample, timestep: reshape(time, timesteps.shape) },
        ...(labels ? { classLabels: labels } : {}),
        ...(random ? { random, firstStream: DROPOUT_STREAM } : {}),
      }),
  );
  const target = targetOf(schedule, { sample: images, epsilon: noise }, level);
  return reshape(mean(square(sub(output, target))), [1]);
}

/** What the schedule says of each image's timestep, `[batch, 1, 1, 1]` each. */
function levelsOf(schedule: ScheduleConfig, timesteps: Tensor): LevelTensors & { time: Tensor } {
  const levels = new NoiseSchedule(schedule), count = schedule.numTrainTimesteps;
  const rows = Array.from({ length: count }, (_, t) => levels.levelAt(t))
    .flatMap(({ time, alpha, sigma }) => [time, alpha, sigma]);
  const level = gather(constant(rows, [count, 3]), timesteps);
  const [time, alpha, sigma] = [0, 1, 2].map((i) =>
    reshape(slice(level, 1, i, 1), [timesteps.shape[0], 1, 1, 1])
  );
  return { time, alpha, sigma };
}

/** The first of the streams of random numbers that dropout uses. */
const DROPOUT_STREAM = 1000;

/** 1 where weights decay, which fixed parameters do not. */
function decayMask({ specs, offsets, size }: ParameterLayout): Tensor | number {
  if (specs.every((s) => s.isTrained)) return 1;
  const mask = new Float32Array(size).fill(1);
  specs.forEach(({ shape, isTrained }, i) => {
    if (!isTrained) mask.fill(0, offsets[i], offsets[i] + sizeOf(shape));
  });
  return constant(mask);
}

/**
 * A whole step. Its inputs are those of the batch, `rates`, and the state that it updates:
 * `parameters`, `moment1`, `moment2`, `ema`, all flat, and `history` `[HISTORY, 2]` of losses and
 * gradient norms.
 */
export function trainingStep(
  config: UNetConfig,
  schedule: ScheduleConfig,
  layout: ParameterLayout,
  { betas: [beta1, beta2], eps, weightDecay, maxGradNorm }: OptimizerConfig,
  batch: Batch,
): Graph {
  const [parameters, moment1, moment2, ema] = ["parameters", "moment1", "moment2", "ema"].map((
    name,
  ) => input(name, [layout.size]));
  const rates = input("rates", [5]);
  const [rate, decay, correction1, correction2, slot] = [0, 1, 2, 3, 4].map((i) =>
    slice(rates, 0, i, 1)
  );

  const views = viewParameters(layout, parameters);
  const loss = diffusionLoss(config, schedule, views, batch);
  const trained = layout.specs.filter((s) => s.isTrained).map((s) => views.get(s.name)!);
  const gradients = new Map(grad(loss, trained).map((g, i) => [trained[i], g]));
  const packed = layout.specs.map(({ name, shape }) =>
    gradients.get(views.get(name)!) ?? broadcastTo(constant([0]), shape)
  );
  const gradient = pack(packed, layout);
  const norm = sqrt(sum(square(gradient)));
  const clip = map([norm], (n) => e.min(e.div(maxGradNorm, e.add(n, 1e-6)), 1));

  const average = (beta: number) => (old: e.Expression, next: e.Expression) =>
    e.add(e.mul(old, beta), e.mul(next, 1 - beta));
  const next1 = map(
    [moment1, gradient, clip],
    (m, g, clip) => average(beta1)(m, e.mul(g, clip)),
  );
  const next2 = map([moment2, gradient, clip], (v, g, clip) => {
    const clipped = e.mul(g, clip);
    return average(beta2)(v, e.mul(clipped, clipped));
  });
  const updated = map(
    [parameters, next1, next2, rate, correction1, correction2, decayMask(layout)],
    (p, m, v, rate, c1, c2, mask) => {
      const decayed = e.mul(p, e.sub(1, e.mul(rate, e.mul(mask, weightDecay))));
      const direction = e.div(e.mul(m, c1), e.add(e.mul(e.sqrt(v), c2), eps));
      return e.sub(decayed, e.mul(rate, direction));
    },
  );
  const averaged = map(
    [ema, updated, decay],
    (old, p, decay) => e.add(e.mul(old, decay), e.mul(p, e.sub(1, decay))),
  );

  const history = input("history", [HISTORY, 2]);
  const rows = constant([...Array(HISTORY).keys()], [HISTORY, 1]);
  const recorded = map(
    [history, rows, slot, reshape(concat([loss, norm], 0), [1, 2])],
    (old, row, slot, now) => e.select(e.sub(row, slot), old, now),
  );
  return makeGraph({}, [
    [parameters, updated],
    [moment1, next1],
    [moment2, next2],
    [ema, averaged],
    [history, recorded],
  ]);
}
