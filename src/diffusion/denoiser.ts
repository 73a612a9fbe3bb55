/**
 * The seam between models and what works with them: a {@linkcode Denoiser} is all that samplers, the
 * variational bound and the probability flow know of a model. Guidance, conditions and edits are
 * functions from a denoiser to a denoiser.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { clamp, map } from "../gpu/ops/map.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import { sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape } from "../gpu/ops/view.ts";
import { constant, type DType, type Tensor } from "../gpu/tensor.ts";
import type { Shape } from "../shape.ts";
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
  /** For classes and tokens: values are integers from 0 to this, exclusive. */
  readonly below?: number;
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
    const most = clamp(quantile(sample, dynamicThresholdingRatio), 1, sampleMaxValue);
    return map(
      [sample, most],
      (x, s) => e.div(e.max(e.min(x, s), e.neg(s)), s),
    );
  }
  const { clipSample, clipSampleRange: range } = schedule;
  return clipSample ? clamp(sample, -range, range) : sample;
}

/** Halvings of the interval that a quantile lies in, down to the resolution of 32-bit floats. */
const HALVINGS = 40;

/**
 * The quantile of each image's magnitudes, between neighbours as torch.quantile has it, `[batch, 1,
 * 1, 1]`: devices do not sort, but they count fast how many values are below a bound.
 */
export function quantile(x: Tensor, ratio: number): Tensor {
  const [count] = x.shape, size = x.shape.slice(1).reduce((a, b) => a * b);
  const place = ratio * (size - 1), below = Math.floor(place), share = place - below;
  const values = reshape(map([x], (x) => e.max(x, e.neg(x))), [count, size, 1]);
  // The values that have `below` and `below + 1` smaller ones in order, if there are so many.
  const ranks = constant([below, Math.min(below + 1, size - 1)], [1, 1, 2]);
  // Not even the largest is beyond the sum of all.
  let high = broadcastTo(sum(values, [1]), [count, 1, 2]);
  let low = broadcastTo(constant([0], [1, 1, 1]), [count, 1, 2]);
  for (let i = 0; i < HALVINGS; i++) {
    const middle = map([low, high], (a, b) => e.mul(e.add(a, b), 0.5));
    // Values that are not above the middle.
    const known = sum(map([values, middle], (v, m) => e.sub(1, e.less(m, v))), [1]);
    const bounds = [low, high, middle, known, ranks];
    const next = [true, false].map((isLow) =>
      map(
        bounds,
        (a, b, m, n, rank) =>
          isLow ? e.select(e.less(rank, n), a, m) : e.select(e.less(rank, n), m, b),
      )
    );
    [low, high] = next;
  }
  const weights = constant([1 - share, share], [1, 1, 2]);
  const found = sum(map([high, weights], (v, w) => e.mul(v, w)), [2]);
  return perItem(reshape(found, [count]), x.shape.length - 1);
}
