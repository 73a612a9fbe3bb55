/**
 * The seam between models and sampling methods: whatever a network predicts, a method is given an
 * estimate of the image and of the noise.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { clamp, map } from "../gpu/ops/map.ts";
import { quantile } from "../gpu/ops/quantile.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { sizeOf } from "../shape.ts";
import {
  askNetwork,
  type Estimates,
  estimatesOf,
  type LevelTensors,
  type Prediction,
} from "../diffusion/prediction.ts";
import type { ScheduleConfig } from "../diffusion/schedule.ts";

/**
 * Both estimates from what a network makes of noisy images, that of x_0 limited as the schedule
 * says; that of ε is as it comes from the network.
 *
 * @param x The noisy images.
 */
export function denoise(
  schedule: ScheduleConfig,
  x: Tensor,
  level: LevelTensors,
  network: (x: Tensor) => Tensor,
): Estimates & Prediction {
  const prediction = askNetwork(schedule, x, level, network);
  const { sample, epsilon } = estimatesOf(schedule, x, prediction.output, level);
  return { ...prediction, sample: limit(schedule, sample), epsilon };
}

function limit(schedule: ScheduleConfig, sample: Tensor): Tensor {
  const { thresholding, dynamicThresholdingRatio, sampleMaxValue } = schedule;
  if (thresholding) {
    const { shape } = sample, magnitudes = map([sample], (x) => e.max(x, e.neg(x)));
    const rows = reshape(magnitudes, [shape[0], sizeOf(shape) / shape[0]]);
    const limits = clamp(quantile(rows, dynamicThresholdingRatio), 1, sampleMaxValue);
    const most = reshape(limits, shape.map((n, i) => i ? 1 : n));
    return map(
      [sample, most],
      (x, s) => e.div(e.max(e.min(x, s), e.neg(s)), s),
    );
  }
  const { clipSample, clipSampleRange: range } = schedule;
  return clipSample ? clamp(sample, -range, range) : sample;
}
