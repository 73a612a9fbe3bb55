/**
 * The seam between models and sampling methods: whatever a network predicts, a method is given an
 * estimate of the image and of the noise.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { clamp, map } from "../gpu/ops/map.ts";
import { sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
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
  return reshape(sum(map([high, weights], (v, w) => e.mul(v, w)), [2]), [count, 1, 1, 1]);
}
