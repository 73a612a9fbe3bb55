/**
 * Classifier guidance (Dhariwal and Nichol 2021, algorithm 2): a classifier of noised items pulls
 * them towards a class.
 *
 * @module
 */

import type { Denoiser, DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { perItem } from "../../diffusion/items.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { grad } from "../../gpu/grad.ts";
import { mul } from "../../gpu/ops/map.ts";
import { sum } from "../../gpu/ops/sum.ts";
import { classifierNetwork, classify, logSoftmax, oneHot } from "../../model/classifier.ts";
import type { Model } from "../../model/model.ts";
import type { ClassifierNetwork } from "../../model/network.ts";
import { parameterInputs, viewParameters } from "../../model/parameters.ts";
import { weightsOf } from "../../model/weights.ts";
import { addConditions, addScore } from "./score.ts";

/** Settings of {@linkcode classifierGuided}. */
export interface ClassifierGuidedOptions {
  /** s, how much the classifier counts. @default {1} */
  readonly scale?: number;
  /**
   * What the weights, and the condition with the scale of each item, are named after.
   * @default {"classifier"}
   */
  readonly name?: string;
}

/**
 * Guidance by a classifier of noised items, which `train --objective classifier` makes: s times the
 * gradient of log p(class | x_t) is added to the score, so that ε becomes ε - s σ ∇ log p. The
 * denoiser may know classes or not; the gradient goes through the classifier only.
 *
 * The class of each item is the condition `labels`, which a denoiser with classes is told as well;
 * what is no class of the classifier is not guided. The scale is the condition `classifier_scale`.
 *
 * @throws {InputError} If the model is no classifier, or one of other items, noise or classes.
 *
 * @example
 * ```ts
 * import { classifierGuided, initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
 *
 * const fields = { sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"] };
 * const model = initializeModel(parseNetwork({ ...fields, up_block_types: ["UpBlock2D"] }), {}, 0);
 * const classifier = initializeModel(
 *   parseNetwork({ ...fields, _class_name: "UNet2DClassifier", num_classes: 10 }), {}, 0);
 * using device = await openDevice("cpu");
 * const wrap = [classifierGuided(classifier, { scale: 3 })];
 * using sampler = await Sampler.create(device, model, { steps: 2, batchSize: 2, wrap });
 * const { count } = await sampler.sample({ count: 2, labels: [7, 2] });
 * console.log(count); // 2
 * ```
 */
export function classifierGuided(
  model: Model,
  { scale = 1, name = "classifier" }: ClassifierGuidedOptions = {},
): DenoiserWrapper {
  const network = classifierNetwork(model), { layout, classes } = network;
  const schedule = new NoiseSchedule(model.schedule), condition = `${name}_scale`;
  return (denoiser) => {
    checkClassifier(network, schedule, denoiser);
    const { labels } = denoiser.conditions;
    if (denoiser.weights[name]) {
      throw new InputError(`Cannot guide twice by ${name}: give one of the wrappers another name`);
    }
    return {
      ...denoiser,
      weights: { ...denoiser.weights, ...weightsOf(model, name) },
      conditions: addConditions(denoiser, {
        ...(labels ? {} : { labels: { shape: [], dtype: "i32", below: classes } }),
        [condition]: { shape: [], dtype: "f32", default: scale },
      }),
      estimate(query) {
        const { x, level, conditions } = query;
        const parameter = viewParameters(layout, parameterInputs(layout, name));
        const logits = classify(network, model.schedule, { parameter }, x, level);
        const chosen = mul(logSoftmax(logits), oneHot(conditions.labels, classes));
        const [gradient] = grad(sum(chosen), [x]);
        const scales = perItem(conditions[condition], x.shape.length - 1);
        return addScore(denoiser.estimate(query), level, mul(gradient, scales));
      },
    };
  };
}

/** @throws {InputError} If the classifier cannot judge what the denoiser works on. */
function checkClassifier(
  { itemShape, classes, features }: ClassifierNetwork,
  schedule: NoiseSchedule,
  { itemShape: item, schedule: other, conditions: { labels } }: Denoiser,
): void {
  const refuse = (why: string) => {
    throw new InputError(`Cannot guide by this classifier: ${why}`);
  };
  if (features) refuse("it has learnt images without noise; train one by --config classifier");
  if (itemShape.length !== item.length || itemShape.some((n, i) => n !== null && n !== item[i])) {
    refuse(`it is for items of ${itemShape.join("x")}, and the model's are ${item.join("x")}`);
  }
  const bars = other.alphasCumprod, tells = (s: NoiseSchedule) => s.config.predictionType === "edm";
  const isSame = tells(other) === tells(schedule) &&
    (!tells(other) || other.config.sigmaData === schedule.config.sigmaData) &&
    schedule.alphasCumprod.length === bars.length &&
    schedule.alphasCumprod.every((bar, t) => Math.abs(bar - bars[t]) < 1e-6);
  if (!isSame) refuse("it was trained on another noise schedule than the model");
  if (labels && (labels.shape.length || labels.dtype !== "i32" || labels.below! < classes)) {
    refuse(`it has ${classes} classes, and the model ${labels.below ?? "none that are numbered"}`);
  }
}
