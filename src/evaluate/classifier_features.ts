/**
 * Features of a small classifier, trained by `ddpm train --config features`.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { classifierNetwork } from "../model/classifier.ts";
import type { Model } from "../model/model.ts";
import type { ClassifierNetwork } from "../model/network.ts";
import type { FeatureExtractor } from "./feature_extractor.ts";
import { networkFeatures } from "./network_features.ts";

/** Settings of {@linkcode classifierFeatures}. */
export interface ClassifierFeaturesOptions {
  /** What the extractor is called. @default {"classifier"} */
  readonly name?: string;
  /** Pictures that are computed together. @default {64} */
  readonly batchSize?: number;
}

/** A classifier of items without noise. */
type CleanClassifier = ClassifierNetwork & Required<Pick<ClassifierNetwork, "features">>;

/**
 * The network of a model that sees features in clean items.
 *
 * @throws {InputError} If it is of another kind.
 */
export function featureNetwork(model: Pick<Model, "network">): CleanClassifier {
  const network = classifierNetwork(model), { features } = network;
  if (features) return { ...network, features };
  throw new InputError(
    `Cannot take features of a ${network.className}: it is for noisy images; train --config features ` +
      "makes one for images as they are",
  );
}

/**
 * Compiles a classifier of pictures without noise. Its features are what its last layer takes.
 *
 * @throws {InputError} If the model is no such classifier.
 * @throws {DeviceError} If it does not fit the device.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseNetwork } from "@x/ddpm";
 * import { classifierFeatures } from "@x/ddpm/evaluate";
 *
 * const network = parseNetwork({ _class_name: "FeatureClassifier", sample_size: 8 });
 * using device = await openDevice("cpu");
 * using extractor = await classifierFeatures(device, initializeModel(network, {}, 0));
 * const pictures = { count: 3, shape: [8, 8, 1], data: new Float32Array(192) };
 * const { features, logits } = await extractor.extract(pictures);
 * console.log(features.length, logits?.length); // 3 times 64, 3 times 10
 * ```
 */
export async function classifierFeatures(
  device: Device,
  model: Model,
  { name = "classifier", batchSize = 64 }: ClassifierFeaturesOptions = {},
): Promise<FeatureExtractor> {
  const { features } = featureNetwork(model);
  return await networkFeatures(device, model, { name, batchSize }, features.forward);
}
