/**
 * A training step as a graph: forward pass, loss, backward pass, gradient clipping, Adam and the
 * moving average of the weights. A step in parts is two graphs, of which the first adds up gradients;
 * and a third one only measures the loss.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import type { Precision } from "../gpu/device.ts";
import { grad, type Segment } from "../gpu/grad.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import { concat } from "../gpu/ops/concat.ts";
import { add, map, mul, sqrt, square, toFloat } from "../gpu/ops/map.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape, slice } from "../gpu/ops/view.ts";
import { sizeOf } from "../shape.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import type { DualEncoderNetwork } from "../model/dual_encoder.ts";
import type {
  AutoencoderNetwork,
  Forward,
  NoisyItemsNetwork,
  TrainableNetwork,
} from "../model/network.ts";
import {
  parameterInputs,
  type ParameterLayout,
  type ParameterSource,
  type Shard,
  shardName,
  shardsOf,
  viewParameters,
} from "../model/parameters.ts";
import type { ScheduleConfig } from "../diffusion/schedule.ts";
import { autoencoding } from "./autoencoding.ts";
import { classification } from "./classification.ts";
import { type BatchTexts, contrasting } from "./contrasting.ts";
import { LossScale, unlessSkipped } from "./loss_scale.ts";
import { type Batch, diffusionLosses, type ObjectiveConfig } from "./objective.ts";
import type { Draw } from "./timesteps.ts";

/** Settings that do not change from step to step. */
export interface OptimizerConfig {
  /** Decay of the moments of the gradient. @default {[0.9, 0.999]} */
  readonly betas: readonly [number, number];
  /** Added to the root of the second moment. @default {1e-8} */
  readonly eps: number;
  /**
   * `adamw` takes a share of the weights away at every step (Loshchilov and Hutter 2019); `adam` adds
   * it to the gradients (L2). @default {"adamw"}
   */
  readonly optimizer: "adamw" | "adam";
  /** That share, times the learning rate for `adamw`. @default {0} */
  readonly weightDecay: number;
  /** Gradients with a larger norm are scaled down to it. @default {1} */
  readonly maxGradNorm: number;
  /**
   * How activations and their gradients are kept. `f16` takes half the memory for them, and a GPU with
   * 16-bit floats; the loss is scaled, and a step whose gradients overflow all the same is skipped
   * (Micikevicius et al. 2018). @default {"f32"}
   */
  readonly precision: Precision;
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
/** Losses are also told apart by their timesteps, in this many equal ranges. */
export const RANGES = 4;
/**
 * What is known of the losses of a batch: their mean; their sum and number by range; and of
 * classifiers, how many were right by range. Of autoencoders, after the mean, its two terms; of dual
 * encoders, the share of images that were right.
 */
export function tallySize({ kind }: Pick<TrainableNetwork, "kind">): number {
  switch (kind) {
    case "denoiser":
      return 1 + 2 * RANGES;
    case "classifier":
      return 1 + 3 * RANGES;
    case "autoencoder":
      return 3;
    case "dual encoder":
      return 2;
  }
}
/**
 * Numbers a step in the history: the gradient's norm after the first of the tally; and with loss scaling
 * one more at the end, the scale.
 */
export const rowSize = (network: Pick<TrainableNetwork, "kind">): number => 1 + tallySize(network);
/** Those of a denoiser. */
export const ROW: number = rowSize({ kind: "denoiser" });

/** The program's `rates` for a step. */
export function encodeRates(
  { learningRate, emaDecay, step }: Rates,
  { betas: [beta1, beta2] }: OptimizerConfig,
): number[] {
  const corrections = [1 / (1 - beta1 ** (step + 1)), 1 / Math.sqrt(1 - beta2 ** (step + 1))];
  return [learningRate, emaDecay, ...corrections, step % HISTORY];
}

/** 1 where weights of a shard decay, which fixed parameters do not. */
function decayMask({ specs }: ParameterLayout, { size, families }: Shard): Tensor | number {
  const fixed = families.filter(({ members }) => !specs[members[0]].isTrained);
  if (!fixed.length) return 1;
  const mask = new Float32Array(size).fill(1);
  for (const { members: [i], offset } of fixed) {
    mask.fill(0, offset, offset + sizeOf(specs[i].shape));
  }
  return constant(mask);
}

/** What all steps are traced from. */
interface StepSizes {
  /** Images of the step, of which the batch may be a part. */
  readonly images: number;
  /** Whether what lies within blocks of the network is computed again for the gradients. */
  readonly recomputes?: boolean;
}

/** Everything a step of a network of noisy items is traced from. */
export interface DiffusionStepSpec extends StepSizes {
  readonly network: NoisyItemsNetwork;
  readonly schedule: ScheduleConfig;
  /** What is minimised. */
  readonly objective: ObjectiveConfig;
  readonly batch: Batch & Partial<Draw>;
}

/** Everything a step of an autoencoder is traced from: there is no noise, but in its latents. */
export interface AutoencoderStepSpec extends StepSizes {
  readonly network: AutoencoderNetwork;
  readonly batch: Pick<Batch, "images" | "random">;
}

/** Everything a step of a dual encoder is traced from. */
export interface ContrastiveStepSpec extends StepSizes {
  readonly network: DualEncoderNetwork;
  readonly batch: Pick<Batch, "images">;
  readonly texts: BatchTexts;
}

/** Everything a training step is traced from. */
export type StepSpec = DiffusionStepSpec | AutoencoderStepSpec | ContrastiveStepSpec;

/** What is known of a batch, beside the mean, by quarters of the timesteps. */
function byRanges(
  { schedule, batch }: DiffusionStepSpec,
  losses: Tensor,
  correct: Tensor | undefined,
): Tensor[] {
  const [count] = losses.shape, { numTrainTimesteps: T } = schedule;
  const bound = (i: number) => constant(ranges.map((q) => (q + i) * T / RANGES - 0.5), [1, RANGES]);
  const ranges = Array.from({ length: RANGES }, (_, q) => q);
  const isIn = map(
    [reshape(toFloat(batch.timesteps), [count, 1]), bound(0), bound(1)],
    (t, low, high) => e.mul(e.less(low, t), e.less(t, high)),
  );
  const byRange = (x: Tensor) => sum(mul(isIn, reshape(x, [count, 1])), [0]);
  return [byRange(losses), sum(isIn, [0]), ...(correct ? [byRange(correct)] : [])];
}

/** What is known of a batch, its means as shares of those of the step. */
function tally({ images }: StepSpec, { weighted, details }: Measured): Tensor {
  const parts = [mul(sum(weighted), 1 / images), ...details];
  return concat(parts.map((x) => reshape(x, [x.shape.at(-1)!])), 0);
}

/** What is learnt of a batch. */
interface Learnt {
  /** A share of the gradient of the step by each shard, times the scale of the loss. */
  readonly gradients: readonly Tensor[];
  readonly tally: Tensor;
  /** What the drawing of timesteps remembers. */
  readonly observed: Graph["updates"];
}

function learn(spec: StepSpec, shards: readonly Tensor[], scale: Tensor | undefined): Learnt {
  const { network, images } = spec, parameter = viewParameters(network.layout, shards);
  const segments: Segment[] = [], recomputed = spec.recomputes ? "block" : "attention";
  const measured = measure(spec, parameter, (kind, segment) => {
    if (kind === recomputed) segments.push(segment);
  });
  const mean = mul(sum(measured.weighted), 1 / images), loss = scale ? mul(mean, scale) : mean;
  return {
    gradients: grad(loss, shards, segments),
    tally: tally(spec, measured),
    observed: measured.observed,
  };
}

/** The losses of a batch. */
interface Measured {
  /** As they count, `[batch]`. */
  readonly weighted: Tensor;
  /** What else is known of them, for the tally. */
  readonly details: readonly Tensor[];
  /** What the drawing of timesteps remembers. */
  readonly observed: Graph["updates"];
}

function measure(
  spec: StepSpec,
  parameter: ParameterSource,
  onSegment?: Forward["onSegment"],
): Measured {
  if ("texts" in spec) {
    const { network, batch, texts, images } = spec;
    const { losses, correct } = contrasting(network, parameter, batch, texts);
    return { weighted: losses, details: [mul(sum(correct), 1 / images)], observed: [] };
  }
  if (!("schedule" in spec)) {
    const { network, batch, images } = spec;
    const { losses, terms } = autoencoding(network, parameter, batch, onSegment);
    const details = terms.map((term) => mul(sum(term), 1 / images));
    return { weighted: losses, details, observed: [] };
  }
  const { network, schedule, objective, batch } = spec;
  const measured: { losses: Tensor; correct?: Tensor } = network.kind === "classifier"
    ? classification(network, schedule, parameter, batch, onSegment)
    : { losses: diffusionLosses(network, schedule, objective, parameter, batch, onSegment) };
  const { losses, correct } = measured;
  return {
    weighted: batch.importance ? mul(losses, batch.importance) : losses,
    details: byRanges(spec, losses, correct),
    observed: batch.observe ? [batch.observe(losses)] : [],
  };
}

/** What a gradient does to the state. */
function update(
  layout: ParameterLayout,
  { betas: [beta1, beta2], eps, weightDecay, maxGradNorm, optimizer }: OptimizerConfig,
  shards: readonly Tensor[],
  { gradients, tally, observed }: Learnt,
  scaling: LossScale | undefined,
): Graph["updates"] {
  const states = ["moment1", "moment2", "ema"].map((name) => parameterInputs(layout, name));
  const rates = input("rates", [5]);
  const [rate, decay, ...known] = [0, 1, 2, 3].map((i) => slice(rates, 0, i, 1));
  const slot = slice(rates, 0, 4, 1), squares = gradients.map((g) => sum(square(g)));
  const scaledNorm = sqrt(squares.reduce((a, b) => add(a, b)));
  const judgement = scaling?.judge(scaledNorm, [beta1, beta2]),
    norm = judgement?.norm ?? scaledNorm;
  const [correction1, correction2] = judgement?.corrections ?? known;
  const limit = map([norm], (n) => e.min(e.div(maxGradNorm, e.add(n, 1e-6)), 1));
  const clip = scaling ? map([limit, scaling.scale], e.div) : limit;
  const [l2, taken] = optimizer === "adam" ? [weightDecay, 0] : [0, weightDecay];
  const average = (beta: number) => (old: e.Expression, next: e.Expression) =>
    e.add(e.mul(old, beta), e.mul(next, 1 - beta));
  const changes = shardsOf(layout).map((shard, k) => {
    const parameters = shards[k], gradient = gradients[k], mask = decayMask(layout, shard);
    const [moment1, moment2, ema] = states.map((state) => state[k]);
    const used = l2
      ? map(
        [gradient, clip, parameters, mask],
        (g, clip, p, mask) => e.add(e.mul(g, clip), e.mul(p, e.mul(mask, l2))),
      )
      : mul(gradient, clip);
    const next1 = map([moment1, used], average(beta1));
    const next2 = map([moment2, used], (v, g) => average(beta2)(v, e.mul(g, g)));
    const updated = map(
      [parameters, next1, next2, rate, correction1, correction2, mask],
      (p, m, v, rate, c1, c2, mask) => {
        const decayed = e.mul(p, e.sub(1, e.mul(rate, e.mul(mask, taken))));
        const direction = e.div(e.mul(m, c1), e.add(e.mul(e.sqrt(v), c2), eps));
        return e.sub(decayed, e.mul(rate, direction));
      },
    );
    const averaged = map(
      [ema, updated, decay],
      (old, p, decay) => e.add(e.mul(old, decay), e.mul(p, e.sub(1, decay))),
    );
    return [[parameters, updated], [moment1, next1], [moment2, next2], [ema, averaged]] as const;
  });

  const [size] = tally.shape, width = size + (scaling ? 2 : 1);
  const history = input("history", [HISTORY, width]);
  const rows = constant([...Array(HISTORY).keys()], [HISTORY, 1]);
  const parts = [slice(tally, 0, 0, 1), norm, slice(tally, 0, 1, size - 1)];
  const now = concat([...parts, ...(scaling ? [scaling.scale] : [])], 0);
  const recorded = map(
    [history, rows, slot, reshape(now, [1, width])],
    (old, row, slot, now) => e.select(e.sub(row, slot), old, now),
  );
  const learnt: Graph["updates"] = [...changes.flat(), ...observed];
  return [
    ...(judgement ? unlessSkipped(learnt, judgement.isGood) : learnt),
    [history, recorded],
    ...judgement?.updates ?? [],
  ];
}

/**
 * A whole step. Its inputs are those of the batch, `rates`, and the state that it updates:
 * `parameters`, `moment1`, `moment2`, `ema`, all flat, by shards, and `history` `[HISTORY, ...]` of
 * losses and gradient norms; what the drawing of timesteps remembers; and `scaling` of the loss, for `f16`.
 */
export function trainingStep(spec: StepSpec, optimizer: OptimizerConfig): Graph {
  const { layout } = spec.network, parameters = parameterInputs(layout);
  const scaling = scalingOf(optimizer), learnt = learn(spec, parameters, scaling?.scale);
  return makeGraph({}, update(layout, optimizer, parameters, learnt, scaling));
}

/** Gradients that are kept as 16-bit floats are those of a scaled loss. */
const scalingOf = ({ precision }: Pick<OptimizerConfig, "precision">) =>
  precision === "f16" ? new LossScale() : undefined;

/** Adds a value to an input, or puts it there in place of what was, where `isNext` is 0. */
function accumulate(name: string, value: Tensor, isNext: Tensor): Graph["updates"][number] {
  const before = input(name, value.shape);
  const after = map(
    [before, value, isNext],
    (before, value, isNext) => e.select(isNext, e.add(before, value), value),
  );
  return [before, after];
}

/**
 * A part of a step. Its gradient and losses go to `gradient` and `tally`, which
 * {@linkcode updateStep} takes.
 */
export function gradientStep(spec: StepSpec, optimizer: OptimizerConfig): Graph {
  const isNext = input("isNext", [1]), parameters = parameterInputs(spec.network.layout);
  const { gradients, tally } = learn(spec, parameters, scalingOf(optimizer)?.scale);
  return makeGraph({}, [
    ...gradients.map((gradient, k) => accumulate(shardName("gradient", k), gradient, isNext)),
    accumulate("tally", tally, isNext),
  ]);
}

/** What is left of a step when all gradients are there. */
export function updateStep(network: TrainableNetwork, optimizer: OptimizerConfig): Graph {
  const { layout } = network, gradients = parameterInputs(layout, "gradient");
  const tally = input("tally", [tallySize(network)]);
  const parameters = parameterInputs(layout), learnt = { gradients, tally, observed: [] };
  return makeGraph({}, update(layout, optimizer, parameters, learnt, scalingOf(optimizer)));
}

/** Measures losses and learns nothing; they go to `tally`. */
export function evaluationStep(spec: StepSpec): Graph {
  const { layout } = spec.network, isNext = input("isNext", [1]);
  const measured = measure(spec, viewParameters(layout, parameterInputs(layout)));
  return makeGraph({}, [accumulate("tally", tally(spec, measured), isNext)]);
}
