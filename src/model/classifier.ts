/**
 * Models as classifiers of noisy items.
 *
 * @module
 */

import { askNetwork } from "../diffusion/prediction.ts";
import type { Level } from "../diffusion/denoiser.ts";
import type { ScheduleConfig } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { exp, log, map, mul, sub, toFloat } from "../gpu/ops/map.ts";
import { softmax } from "../gpu/ops/softmax.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape, stopGradient } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import type { ClassifierNetwork, Forward, Network } from "./network.ts";

/**
 * The network of a model that tells classes apart.
 *
 * @throws {InputError} If it is of another kind.
 */
export function classifierNetwork(
  { network }: { readonly network: Network },
): ClassifierNetwork {
  if (network.kind === "classifier") return network;
  throw new InputError(
    `The model is a ${network.kind}, a ${network.className}, which tells no classes apart; train ` +
      "--objective classifier makes one that does",
  );
}

/** The logits `[batch, classes]` of noisy items. */
export const classify = (
  network: ClassifierNetwork,
  schedule: ScheduleConfig,
  forward: Forward,
  x: Tensor,
  level: Level,
): Tensor =>
  // A classifier has no channels for variances.
  askNetwork(
    { ...schedule, varianceType: "fixed_small" },
    x,
    level,
    (sample) => network.forward(forward, { sample, timestep: level.time, conditions: {} }),
  ).output;

/** Logarithms of the probabilities that logits `[batch, classes]` stand for. */
export function logSoftmax(logits: Tensor): Tensor {
  // The mean weighted by the probabilities is below the largest by the logarithm of the number of
  // classes at the most, so that no exponential overflows, and the sum does not vanish.
  const center = stopGradient(sum(mul(softmax(logits), logits), [1]));
  const centered = sub(logits, center);
  return sub(centered, log(sum(exp(centered), [1])));
}

/** 1 for the class of each item and 0 elsewhere, `[batch, classes]`; what is no class has zeros. */
export function oneHot(labels: Tensor, classes: number): Tensor {
  const all = constant(Array.from({ length: classes }, (_, k) => k), [1, classes]);
  const own = reshape(toFloat(labels), [labels.shape[0], 1]);
  return map([own, all], (label, k) => e.select(e.sub(label, k), 0, 1));
}
