/**
 * The seam between models and what works with them: a {@linkcode Denoiser} is all that samplers, the
 * variational bound and the probability flow know of a model. Guidance, conditions and edits are
 * functions from a denoiser to a denoiser.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { clamp, map } from "../gpu/ops/map.ts";
import { quantile } from "../gpu/ops/quantile.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { DType, Tensor } from "../gpu/tensor.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { perItem } from "./items.ts";
import { askNetwork, type Estimates, estimatesOf, type LevelTensors } from "./prediction.ts";
import type { NoiseLevel, NoiseSchedule, ScheduleConfig } from "./schedule.ts";
import type { WeightValues } from "./weights.ts";

/** Something that a denoiser is told of each item beside its noisy data, such as a class. */
export interface Condition {
  /** Shape of one item's value: `[]` for a class, `[height, width, channels]` for a picture. */
  readonly shape: Shape;
  /** `i32` for classes and tokens. */
  readonly dtype: DType;
  /** The number, in all elements, that stands for "none"; without it the condition must be given. */
  readonly none?: number;
  /** The number, in all elements, that is taken where none is given, such as a scale. */
  readonly default?: number;
  /** For classes and tokens: values are integers from 0 to this, exclusive. */
  readonly below?: number;
  /**
   * Whether guidance leads from another value of it to this one, as from another text. What has a
   * "none", and classes, are so anyway.
   */
  readonly hasNegative?: boolean;
}

/** Conditions by name; class labels are called `labels`. */
export type Conditions = Readonly<Record<string, Condition>>;

/** The noise of a batch, and what networks are told of it. */
export interface Level extends LevelTensors {
  /** `f32` `[batch]`. */
  readonly time: Tensor;
}

/** What a denoiser is asked. */
export interface Query {
  /** Noisy items `[batch, ...shape]`, α x_0 + σ ε. */
  readonly x: Tensor;
  /** Their noise. */
  readonly level: Level;
  /** The value of every condition, `[batch, ...shape]`. */
  readonly conditions: Readonly<Record<string, Tensor>>;
  /** Where in the sequence of random numbers the evaluation is, for those that draw some. */
  readonly random: RandomState;
}

/** What a denoiser says of noisy items. */
export interface Denoised extends Estimates {
  /**
   * With `learned_range`: where between the logarithms of the least (-1) and the largest variance (1)
   * that of the reverse step lies.
   */
  readonly variance?: Tensor;
  /** What the noisy items are taken for, where an edit replaces a part of them. */
  readonly x?: Tensor;
}

/**
 * An estimator of x_0 and ε, as a function of tensors.
 *
 * @example A wrapper: images are pulled towards grey
 * ```ts
 * import type { Denoiser } from "@x/ddpm";
 * import { mul } from "@x/ddpm/tensor";
 *
 * const greyer = (denoiser: Denoiser): Denoiser => ({
 *   ...denoiser,
 *   estimate(query) {
 *     const estimates = denoiser.estimate(query);
 *     return { ...estimates, sample: mul(estimates.sample, 0.9) };
 *   },
 * });
 * console.log(greyer.name);
 * ```
 */
export interface Denoiser {
  /** The noise that it knows. */
  readonly schedule: NoiseSchedule;
  /** Shape of an item, `[height, width, channels]` for pictures. */
  readonly itemShape: Shape;
  /** What it is told beside noisy items. */
  readonly conditions: Conditions;
  /** The values of its weights by the names of the inputs that it reads them from. */
  readonly weights: Readonly<Record<string, WeightValues>>;
  /** Both estimates; not limited to the range of images, see {@linkcode limited}. */
  estimate(query: Query): Denoised;
}

/** A denoiser made of another one. */
export interface DenoiserWrapper {
  (denoiser: Denoiser): Denoiser;
  /**
   * The noise levels at which it does anything; at others a sampler uses what it wraps, which costs
   * less. By default all.
   */
  readonly isActive?: (level: NoiseLevel) => boolean;
}

/** Puts wrappers around a denoiser, the first one innermost. */
export const wrapped = (
  denoiser: Denoiser,
  wrappers: readonly DenoiserWrapper[],
): Denoiser => wrappers.reduce((inner, wrap) => wrap(inner), denoiser);

/** What networks are as denoisers see them: a prediction for `[batch, ...shape]` at `[batch]` times. */
export type Predictor = (
  x: Tensor,
  time: Tensor,
  conditions: Readonly<Record<string, Tensor>>,
) => Tensor;

/** The denoiser that a network's predictions make. */
export function denoiserFrom(
  predict: Predictor,
  { schedule, itemShape, conditions = {}, weights = {} }:
    & Pick<Denoiser, "schedule" | "itemShape">
    & Partial<Pick<Denoiser, "conditions" | "weights">>,
): Denoiser {
  const { config } = schedule;
  return {
    ...{ schedule, itemShape, conditions, weights },
    estimate({ x, level, conditions }) {
      const ask = (scaled: Tensor) => predict(scaled, level.time, conditions);
      const { output, variance } = askNetwork(config, x, level, ask);
      return { ...estimatesOf(config, x, output, level), ...(variance ? { variance } : {}) };
    },
  };
}

/**
 * The denoiser with its estimate of x_0 limited as its schedule says, by clipping or by dynamic
 * thresholding (Saharia et al. 2022); that of ε is as it comes from the network. Whoever takes
 * gradients of estimates does so before.
 */
export function limited(denoiser: Denoiser): Denoiser {
  const { config } = denoiser.schedule;
  return {
    ...denoiser,
    estimate(query) {
      const estimates = denoiser.estimate(query);
      return { ...estimates, sample: limit(config, estimates.sample) };
    },
  };
}

function limit(schedule: ScheduleConfig, sample: Tensor): Tensor {
  const { thresholding, dynamicThresholdingRatio, sampleMaxValue } = schedule;
  if (thresholding) {
    const { shape } = sample, magnitudes = map([sample], (x) => e.max(x, e.neg(x)));
    const rows = reshape(magnitudes, [shape[0], sizeOf(shape) / shape[0]]);
    const limits = clamp(quantile(rows, dynamicThresholdingRatio), 1, sampleMaxValue);
    const most = perItem(reshape(limits, [shape[0]]), shape.length - 1);
    return map(
      [sample, most],
      (x, s) => e.div(e.max(e.min(x, s), e.neg(s)), s),
    );
  }
  const { clipSample, clipSampleRange: range } = schedule;
  return clipSample ? clamp(sample, -range, range) : sample;
}
