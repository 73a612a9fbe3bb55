/**
 * What `--features` names.
 *
 * @module
 */

import { classifierFeatures, featureNetwork } from "../../evaluate/classifier_features.ts";
import type { FeatureExtractor } from "../../evaluate/feature_extractor.ts";
import { inceptionFeatures, type InceptionPreprocessing } from "../../evaluate/inception.ts";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { itemOf } from "../../model/network.ts";
import { fetchFeatures } from "../../model/pretrained.ts";
import { type ShippedFeatures, shippedFeatures } from "../../model/shipped.ts";
import type { Shape } from "../../shape.ts";
import { openModel } from "../run/open_model.ts";
import { readFile } from "../terminal/files.ts";
import { hashBytes, hashModel } from "./hashes.ts";

/** Features that can be taken. */
export interface Features {
  /** What they are called. */
  readonly name: string;
  /** Which weights make them. */
  readonly hash: string;
  /** The only shape of pictures that they are for, if there is one. */
  readonly shape?: Shape;
  /** What the classes of logits are called, where that is known. */
  readonly classes?: readonly string[];
  /** Whether distances in them are what others call FID. */
  readonly isInception: boolean;
  /** Compiles what makes them. */
  open(device: Device): Promise<FeatureExtractor>;
}

/** Pictures that are computed together. */
const BATCH = 64;

/** Names of Inception v3, and how it is shown pictures. */
const inceptions: Readonly<Record<string, InceptionPreprocessing>> = {
  "inception": "pytorch-fid",
  "inception-torch-fidelity": "torch-fidelity",
};

/** What `--features` takes beside models. */
export const featureNames: readonly string[] = [...shippedFeatures, ...Object.keys(inceptions)];

/**
 * The features of a name, a file or the folder of a training.
 *
 * @param weights The file of Inception's weights.
 * @throws {InputError} If there are none.
 */
export async function readFeatures(place: string, weights: string | undefined): Promise<Features> {
  if (Object.hasOwn(inceptions, place)) return await ofInception(place, weights);
  if (weights !== undefined) throw new InputError("--weights goes with --features inception");
  return shippedFeatures.some((name) => name === place)
    ? ofClassifier(place, await fetchFeatures(place as ShippedFeatures))
    : ofClassifier(place, await openModel(place));
}

async function ofInception(name: string, weights: string | undefined): Promise<Features> {
  if (weights === undefined) {
    throw new InputError(
      `--features ${name} needs --weights, the file pt_inception-2015-12-05-6726825d.pth of ` +
        "pytorch-fid or torch-fidelity, or the same tensors as safetensors",
    );
  }
  const bytes = await readFile(weights), { tensors } = await readTensorFile(bytes, weights);
  return {
    ...{ name, hash: hashBytes(bytes), isInception: true },
    open: (device) =>
      inceptionFeatures(device, tensors, { preprocessing: inceptions[name], what: weights }),
  };
}

function ofClassifier(name: string, model: Model): Features {
  const network = featureNetwork(model);
  return {
    ...{ name, hash: hashModel(model), shape: itemOf(network), isInception: false },
    ...(model.classes ? { classes: model.classes } : {}),
    open: (device) => classifierFeatures(device, model, { name, batchSize: BATCH }),
  };
}
