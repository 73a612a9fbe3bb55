/**
 * The seam between models and sampling methods: whatever a network predicts, a method is given an
 * estimate of the image and of the noise.
 *
 * @module
 */

import { clamp } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type Estimates, estimatesOf, type LevelTensors } from "../model/prediction.ts";
import type { ScheduleConfig } from "../model/schedule.ts";

/**
 * Both estimates from the one that a network makes, that of x_0 clipped if the schedule says so;
 * that of ε is as it comes from the network.
 *
 * @param x The noisy images.
 * @param output What the network made of them.
 */
export function denoise(
  schedule: ScheduleConfig,
  x: Tensor,
  output: Tensor,
  level: LevelTensors,
): Estimates {
  const { sample, epsilon } = estimatesOf(schedule, x, output, level);
  const { clipSample, clipSampleRange: range } = schedule;
  return { sample: clipSample ? clamp(sample, -range, range) : sample, epsilon };
}
