/**
 * What all guidance has in common: from a worse estimate through a better one and beyond, at a scale
 * that each item has of its own, at some noise levels.
 *
 * @module
 */

import type { Condition, Denoised, DenoiserWrapper, Level } from "../../diffusion/denoiser.ts";
import { type Estimates, slopeOf, targetOf } from "../../diffusion/prediction.ts";
import type { ScheduleConfig } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import * as e from "../../gpu/expression.ts";
import { map } from "../../gpu/ops/map.ts";
import { mean } from "../../gpu/ops/sum.ts";
import type { Tensor } from "../../gpu/tensor.ts";

/** Settings of guidance. */
export interface GuidanceOptions {
  /**
   * How far to go: 0 is the worse estimate, 1 the better one, more is guidance. For items whose
   * scale is not given as a condition. @default {2}
   */
  readonly scale?: number;
  /**
   * The least and the largest σ/α at which there is guidance: noise in units of images in [-1, 1].
   * Elsewhere a step costs what it does without (Kynkäänniemi et al. 2024). @default {[0, Infinity]}
   */
  readonly interval?: readonly [low: number, high: number];
  /**
   * φ of Lin et al. 2023: the share of the prediction whose standard deviation, over each item, is
   * brought back to that of the better estimate. 0.7 is usual. @default {0}
   */
  readonly rescale?: number;
}

/** Settings that were checked, and the condition that overrides the scale. */
export interface Guidance {
  readonly rescale: number;
  readonly isActive: NonNullable<DenoiserWrapper["isActive"]>;
  readonly scale: Condition;
}

/** @throws {InputError} If a setting is out of range. */
export function checkGuidance(
  { scale = 2, interval: [low, high] = [0, Infinity], rescale = 0 }: GuidanceOptions,
): Guidance {
  const refuse = (why: string) => new InputError(`Cannot guide ${why}`);
  if (!Number.isFinite(scale)) throw refuse(`at the scale ${scale}: it must be a number`);
  if (!(low >= 0 && low <= high)) {
    throw refuse(
      `at noise levels from ${low} to ${high}: they must be two numbers from 0 on, the lower first`,
    );
  }
  if (!(rescale >= 0 && rescale <= 1)) {
    throw refuse(`with a rescaling of ${rescale}: it must lie between 0 and 1`);
  }
  return {
    rescale,
    scale: { shape: [], dtype: "f32", default: scale },
    isActive({ alpha, sigma }) {
      const noise = sigma / alpha;
      return noise >= low && noise <= high;
    },
  };
}

/** worse + scale (better - worse), then rescaled; `scale` broadcasts to the items. */
export function extrapolate(
  schedule: ScheduleConfig,
  level: Level,
  { worse, better, scale, rescale }: {
    readonly worse: Estimates;
    readonly better: Denoised;
    readonly scale: Tensor;
    readonly rescale: number;
  },
): Denoised {
  const between = (worse: Tensor, better: Tensor) =>
    map([worse, better, scale], (u, c, w) => e.add(u, e.mul(w, e.sub(c, u))));
  const guided = {
    ...better,
    sample: between(worse.sample, better.sample),
    epsilon: between(worse.epsilon, better.epsilon),
  };
  if (!rescale) return guided;
  const [aim, prediction] = [better, guided].map((estimates) =>
    targetOf(schedule, estimates, level)
  );
  // Weights of the prediction that is as large as the better one, and of that which stays: φ, 1 - φ.
  const change = map(
    [prediction, variance(aim), variance(prediction)],
    (x, is, was) => e.mul(x, e.mul(rescale, e.sub(e.sqrt(e.div(is, e.max(was, TINY))), 1))),
  );
  const slope = slopeOf(schedule, level), { alpha, sigma } = level;
  return {
    ...guided,
    sample: map([guided.sample, change, slope], (x, d, s) => e.add(x, e.mul(s, d))),
    epsilon: map(
      [guided.epsilon, change, slope, alpha, sigma],
      (x, d, s, a, b) => e.sub(x, e.mul(e.div(e.mul(a, s), b), d)),
    ),
  };
}

/** A variance that is none, of a network that predicts zero. */
const TINY = 1e-20;

/** Of each item, `[batch, 1, ...]`. */
function variance(x: Tensor): Tensor {
  const axes = x.shape.slice(1).map((_, i) => i + 1);
  return mean(map([x, mean(x, axes)], (x, m) => e.mul(e.sub(x, m), e.sub(x, m))), axes);
}
