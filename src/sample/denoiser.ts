/**
 * The seam between models and sampling methods: whatever a network predicts, a method is given an
 * estimate of the image and of the noise.
 *
 * @module
 */

import { add, mul, sub } from "../gpu/expression.ts";
import { clamp, map } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ScheduleConfig } from "../model/schedule.ts";
import * as e from "../gpu/expression.ts";

/** What a denoiser says of x_t = α x_0 + σ ε. */
export interface Denoised {
  /** The estimate of x_0, clipped if the schedule says so. */
  readonly sample: Tensor;
  /** The estimate of ε, as it comes from the network: not changed by the clipping. */
  readonly epsilon: Tensor;
}

/** α = √ᾱ and σ = √(1 - ᾱ) of a step, one number each. */
export interface NoiseLevel {
  readonly alpha: Tensor;
  readonly sigma: Tensor;
}

/**
 * Both estimates from the one that a network makes.
 *
 * @param x The noisy images.
 * @param output What the network made of them.
 */
export function denoise(
  { predictionType, clipSample, clipSampleRange }: ScheduleConfig,
  x: Tensor,
  output: Tensor,
  { alpha, sigma }: NoiseLevel,
): Denoised {
  const from = (
    f: (x: e.Expression, out: e.Expression, a: e.Expression, s: e.Expression) => e.Expression,
  ) => map([x, output, alpha, sigma], f);
  let sample: Tensor, epsilon: Tensor;
  switch (predictionType) {
    case "epsilon":
      epsilon = output;
      sample = from((x, out, a, s) => e.div(sub(x, mul(s, out)), a));
      break;
    case "sample":
      sample = output;
      epsilon = from((x, out, a, s) => e.div(sub(x, mul(a, out)), s));
      break;
    case "v_prediction":
      sample = from((x, out, a, s) => sub(mul(a, x), mul(s, out)));
      epsilon = from((x, out, a, s) => add(mul(a, out), mul(s, x)));
      break;
  }
  if (clipSample) sample = clamp(sample, -clipSampleRange, clipSampleRange);
  return { sample, epsilon };
}
