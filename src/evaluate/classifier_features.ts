/**
 * Features of a small classifier, trained by `ddpm train --config features`.
 *
 * @module
 */

import { writeWeights } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import { isAllFinite } from "../formats/elements.ts";
import type { Device } from "../gpu/device.ts";
import { makeGraph } from "../gpu/graph.ts";
import { input, inputName } from "../gpu/tensor.ts";
import { classifierNetwork } from "../model/classifier.ts";
import type { Model } from "../model/model.ts";
import { type ClassifierNetwork, itemOf } from "../model/network.ts";
import { parameterInputs, viewParameters } from "../model/parameters.ts";
import { weightsOf } from "../model/weights.ts";
import { Mutex } from "../mutex.ts";
import { formatShape, sameShape, sizeOf } from "../shape.ts";
import { type FeatureExtractor, toLevels } from "./feature_extractor.ts";

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
  const network = featureNetwork(model), { features: seen, layout, classes } = network;
  const shape = itemOf(network), each = sizeOf(shape), inputs = parameterInputs(layout);
  const pictures = input("pictures", [batchSize, ...shape]);
  const parameter = viewParameters(layout, inputs);
  const program = await device.compile(
    makeGraph({ ...seen.forward({ parameter }, pictures) }),
    { label: network.className, constant: inputs.map((x) => inputName(x)!) },
  );
  const { buffers } = program, turns = new Mutex();
  for (const [name, values] of Object.entries(weightsOf(model))) {
    writeWeights(values, buffers[name]);
  }
  return {
    ...{ name, shape, classes, width: seen.width },
    async extract({ count, shape: given, data }, signal) {
      if (!sameShape(given, shape)) {
        throw new InputError(
          `Cannot take features ${name} of pictures of ${formatShape(given)}: they are for ` +
            formatShape(shape),
        );
      }
      if (!isAllFinite(data)) {
        throw new InputError(
          "Cannot take features of pictures that hold numbers that are not finite",
        );
      }
      using _turn = await turns.acquire();
      const features = new Float32Array(count * seen.width);
      const logits = new Float32Array(count * classes);
      for (let first = 0; first < count; first += batchSize) {
        signal?.throwIfAborted();
        const n = Math.min(batchSize, count - first);
        buffers.pictures.write(toLevels(data.subarray(first * each, (first + n) * each)));
        program.run();
        features.set(await buffers.features.read(0, n * seen.width), first * seen.width);
        logits.set(await buffers.logits.read(0, n * classes), first * classes);
      }
      return { features, logits };
    },
    [Symbol.dispose]() {
      program[Symbol.dispose]();
    },
  };
}
