/**
 * What networks predict of x = α x_0 + σ ε, with α² + σ² = 1, and the ways between that, x_0 and ε.
 * Training and sampling both see networks through this file.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { map, sub } from "../gpu/ops/map.ts";
import { broadcastTo, slice } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import type { PredictionType, ScheduleConfig } from "./schedule.ts";

/** α and σ as tensors that broadcast to the items: `[1 or batch, 1, ...]`, of their rank. */
export interface LevelTensors {
  /** The share of x_0. */
  readonly alpha: Tensor;
  /** The share of ε. */
  readonly sigma: Tensor;
}

/** What a network says of noisy images. */
export interface Prediction {
  /** Of the kind that the schedule names. */
  readonly output: Tensor;
  /**
   * With `learned_range`: where between the logarithms of the least (-1) and the largest variance
   * (1) that of the reverse step lies.
   */
  readonly variance?: Tensor;
}

/** Both estimates that follow from a prediction. */
export interface Estimates {
  /** Of x_0. */
  readonly sample: Tensor;
  /** Of ε. */
  readonly epsilon: Tensor;
}

type Three = (a: e.Expression, alpha: e.Expression, sigma: e.Expression) => e.Expression;
type Four = (
  a: e.Expression,
  b: e.Expression,
  alpha: e.Expression,
  sigma: e.Expression,
) => e.Expression;

/** Channels of the output for images of so many. */
export const outputChannels = ({ varianceType }: ScheduleConfig, channels: number): number =>
  varianceType === "learned_range" ? 2 * channels : channels;

/** α x_0 + σ ε. */
export function addNoise(sample: Tensor, epsilon: Tensor, { alpha, sigma }: LevelTensors): Tensor {
  const mix: Four = (x, eps, a, s) => e.add(e.mul(a, x), e.mul(s, eps));
  return map([sample, epsilon, alpha, sigma], mix);
}

/** The variance of x / α where images have that of `sigmaData`, times α². */
const power = (sigmaData: number) => (a: e.Expression, s: e.Expression) =>
  e.add(e.mul(s, s), e.mul(e.mul(a, a), sigmaData ** 2));

/**
 * Asks a network about noisy images.
 *
 * @param network What it makes of them; with `edm` they have unit variance, with `flow_prediction` they
 * are (1 - t) x_0 + t ε.
 */
export function askNetwork(
  config: ScheduleConfig,
  x: Tensor,
  { alpha, sigma }: LevelTensors,
  network: (x: Tensor) => Tensor,
): Prediction {
  const variance = power(config.sigmaData);
  const scales: Partial<Record<PredictionType, Three>> = {
    edm: (x, a, s) => e.div(x, e.sqrt(variance(a, s))),
    flow_prediction: (x, a, s) => e.div(x, e.add(a, s)),
  };
  const scale = scales[config.predictionType];
  const output = network(scale ? map([x, alpha, sigma], scale) : x);
  if (config.varianceType !== "learned_range") return { output };
  const axis = output.shape.length - 1, channels = output.shape[axis] / 2;
  const [mean, range] = [0, 1].map((i) => slice(output, axis, i * channels, channels));
  return { output: mean, variance: range };
}

/** The images and the noise that a prediction amounts to. */
export function estimatesOf(
  { predictionType, sigmaData }: ScheduleConfig,
  x: Tensor,
  output: Tensor,
  { alpha, sigma }: LevelTensors,
): Estimates {
  const from = (f: Four) => map([x, output, alpha, sigma], f), variance = power(sigmaData);
  switch (predictionType) {
    case "epsilon":
      return {
        sample: from((x, out, a, s) => e.div(e.sub(x, e.mul(s, out)), a)),
        epsilon: output,
      };
    case "sample":
      return {
        sample: output,
        epsilon: from((x, out, a, s) => e.div(e.sub(x, e.mul(a, out)), s)),
      };
    case "v_prediction":
      return {
        sample: from((x, out, a, s) => e.sub(e.mul(a, x), e.mul(s, out))),
        epsilon: from((x, out, a, s) => e.add(e.mul(a, out), e.mul(s, x))),
      };
    case "edm":
      // c_skip and c_out of Karras et al. 2022, table 1, for x / α and σ / α.
      return {
        sample: from((x, out, a, s) => {
          const v = variance(a, s);
          const skip = e.div(e.mul(e.mul(a, sigmaData ** 2), x), v);
          return e.add(skip, e.div(e.mul(e.mul(s, sigmaData), out), e.sqrt(v)));
        }),
        epsilon: from((x, out, a, s) => {
          const v = variance(a, s);
          return e.sub(
            e.div(e.mul(s, x), v),
            e.div(e.mul(e.mul(a, sigmaData), out), e.sqrt(v)),
          );
        }),
      };
    case "flow_prediction":
      // ε - x_0 and (1 - t) x_0 + t ε, with t = σ / (α + σ), are two equations for both.
      return {
        sample: from((x, out, a, s) => e.div(e.sub(x, e.mul(s, out)), e.add(a, s))),
        epsilon: from((x, out, a, s) => e.div(e.add(x, e.mul(a, out)), e.add(a, s))),
      };
  }
}

/** What a network should say of `addNoise(sample, epsilon, level)`. */
export function targetOf(
  { predictionType, sigmaData }: ScheduleConfig,
  { sample, epsilon }: Estimates,
  { alpha, sigma }: LevelTensors,
): Tensor {
  const from = (f: Four) => map([sample, epsilon, alpha, sigma], f), variance = power(sigmaData);
  switch (predictionType) {
    case "epsilon":
      return epsilon;
    case "sample":
      return sample;
    case "v_prediction":
      return from((x, eps, a, s) => e.sub(e.mul(a, eps), e.mul(s, x)));
    case "edm":
      return from((x, eps, a, s) =>
        e.div(
          e.sub(e.mul(e.div(s, sigmaData), x), e.mul(e.mul(a, sigmaData), eps)),
          e.sqrt(variance(a, s)),
        )
      );
    case "flow_prediction":
      return sub(epsilon, sample);
  }
}

/** d x_0 / d prediction at given x, of the shape of `alpha`. */
export function slopeOf(
  { predictionType, sigmaData }: ScheduleConfig,
  { alpha, sigma }: LevelTensors,
): Tensor {
  const from = (f: (a: e.Expression, s: e.Expression) => e.Expression) => map([alpha, sigma], f);
  switch (predictionType) {
    case "epsilon":
      return from((a, s) => e.neg(e.div(s, a)));
    case "sample":
      return broadcastTo(constant([1]), alpha.shape);
    case "v_prediction":
      return from((_, s) => e.neg(s));
    case "edm":
      return from((a, s) => e.div(e.mul(s, sigmaData), e.sqrt(power(sigmaData)(a, s))));
    case "flow_prediction":
      return from((a, s) => e.neg(e.div(s, e.add(a, s))));
  }
}
