/**
 * What classifiers learn, of noised items or of items without noise: the cross entropy, and how often they are right.
 *
 * @module
 */

import { addNoise } from "../diffusion/prediction.ts";
import { NoiseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { map, mul, neg } from "../gpu/ops/map.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { classify, logSoftmax, oneHot } from "../model/classifier.ts";
import type { ClassifierNetwork, Forward } from "../model/network.ts";
import type { ParameterSource } from "../model/parameters.ts";
import type { Dataset } from "../data/dataset.ts";
import { type Batch, forwardOf, levelsOf } from "./objective.ts";

/** How a classifier does on a batch. */
export interface Classification {
  /** The cross entropy of each item, `[batch]`, in nats. */
  readonly losses: Tensor;
  /** 1 for each item whose class has the largest logit, `[batch]`. */
  readonly correct: Tensor;
}

/** What a classifier makes of items, whose classes are `batch.labels`. */
export function classification(
  network: ClassifierNetwork,
  schedule: ScheduleConfig,
  parameter: ParameterSource,
  batch: Batch,
  onSegment?: Forward["onSegment"],
): Classification {
  const { images, noise, labels } = batch, [count] = images.shape;
  const forward = forwardOf(parameter, batch, onSegment);
  const noised = () => {
    const level = levelsOf(new NoiseSchedule(schedule), batch);
    return classify(network, schedule, forward, addNoise(images, noise, level), level);
  };
  const logits = network.features?.forward(forward, images).logits ?? noised();
  const isLabel = oneHot(labels!, network.classes);
  const ofLabel = (x: Tensor) => sum(mul(x, isLabel), [1]);
  const better = sum(map([ofLabel(logits), logits], e.less), [1]);
  return {
    losses: reshape(neg(ofLabel(logSoftmax(logits))), [count]),
    correct: reshape(map([better], (n) => e.sub(1, e.min(n, 1))), [count]),
  };
}

/** @throws {InputError} If data have other classes than the network. */
export function checkClasses(network: ClassifierNetwork, { name, labels }: Dataset): void {
  if (!labels) throw new InputError(`Cannot train a classifier: ${name} has no labels`);
  const bad = Array.from(labels).find((c) =>
    !(Number.isInteger(c) && c >= 0 && c < network.classes)
  );
  if (bad === undefined) return;
  throw new InputError(
    `Cannot train: ${name} has the label ${bad}, but the network has classes 0 to ` +
      `${network.classes - 1}`,
  );
}
