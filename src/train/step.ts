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
import { map, mul, sqrt, square } from "../gpu/ops/map.ts";
import { mean, sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { sizeOf } from "../gpu/shape.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import type { UNetConfig } from "../model/config.ts";
import { type ParameterLayout, viewParameters } from "../model/parameters.ts";
import type { ScheduleConfig } from "../model/schedule.ts";
import { type Batch, diffusionLosses, type ObjectiveConfig, SIMPLE } from "./objective.ts";
import type { Draw } from "./timesteps.ts";

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
 * gradient norms; and what the drawing of timesteps remembers.
 *
 * @param objective What the step minimises, by default the mean squared error.
 */
export function trainingStep(
  config: UNetConfig,
  schedule: ScheduleConfig,
  layout: ParameterLayout,
  { betas: [beta1, beta2], eps, weightDecay, maxGradNorm }: OptimizerConfig,
  batch: Batch & Partial<Draw>,
  objective: ObjectiveConfig = SIMPLE,
): Graph {
  const [parameters, moment1, moment2, ema] = ["parameters", "moment1", "moment2", "ema"].map((
    name,
  ) => input(name, [layout.size]));
  const rates = input("rates", [5]);
  const [rate, decay, correction1, correction2, slot] = [0, 1, 2, 3, 4].map((i) =>
    slice(rates, 0, i, 1)
  );

  const views = viewParameters(layout, parameters);
  const losses = diffusionLosses(config, schedule, objective, views, batch);
  const loss = mean(batch.importance ? mul(losses, batch.importance) : losses);
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
    ...(batch.observe ? [batch.observe(losses)] : []),
  ]);
}
