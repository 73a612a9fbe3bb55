/**
 * What `--features` names.
 *
 * @module
 */

import { classifierFeatures, featureNetwork } from "../../evaluate/classifier_features.ts";
import {
  dualEncoderFeatures,
  type TextFeatureExtractor,
} from "../../evaluate/dual_encoder_features.ts";
import type { FeatureExtractor } from "../../evaluate/feature_extractor.ts";
import { inceptionFeatures, type InceptionPreprocessing } from "../../evaluate/inception.ts";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import type { Device } from "../../gpu/device.ts";
import type { DualEncoderModel, Model } from "../../model/model.ts";
import { itemOf } from "../../model/network.ts";
import { fetchDualEncoder, fetchFeatures } from "../../model/pretrained.ts";
import {
  type ShippedDualEncoder,
  shippedDualEncoders,
  type ShippedFeatures,
  shippedFeatures,
} from "../../model/shipped.ts";
import type { Shape } from "../../shape.ts";
import { FoundDualEncoder } from "../run/found_dual_encoder.ts";
import { openModel } from "../run/open_model.ts";
import { readFile } from "../terminal/files.ts";
import { hashBytes, hashModel } from "./hashes.ts";
import { type Metric, whoNeeds } from "./measures.ts";

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
  /** Whether what makes them also tells classes apart. */
  readonly classifies: boolean;
  /** Compiles what makes them. */
  open(device: Device): Promise<FeatureExtractor | TextFeatureExtractor>;
}

/** Pictures that are computed together. */
const BATCH = 64;

/** Names of Inception v3, and how it is shown pictures. */
const inceptions: Readonly<Record<string, InceptionPreprocessing>> = {
  "inception": "pytorch-fid",
  "inception-torch-fidelity": "torch-fidelity",
};

/** The name of features that texts have, too. */
function nameOf(name: ShippedDualEncoder) {
  return `${name}-dual-encoder`;
}

/** What `--features` takes beside models. */
export const featureNames: readonly string[] = [
  ...[...shippedFeatures, ...shippedDualEncoders.map(nameOf)],
  ...Object.keys(inceptions),
];

/**
 * The features of a name, a file or the folder of a training.
 *
 * @param weights The file of Inception's weights.
 * @throws {InputError} If there are none.
 */
export async function readFeatures(place: string, weights: string | undefined): Promise<Features> {
  if (Object.hasOwn(inceptions, place)) return await ofInception(place, weights);
  if (weights !== undefined) throw new InputError("--weights goes with --features inception");
  const dual = shippedDualEncoders.find((name) => nameOf(name) === place);
  if (dual) return ofDualEncoder(place, await fetchDualEncoder(dual));
  if (shippedFeatures.some((name) => name === place)) {
    return ofClassifier(place, await fetchFeatures(place as ShippedFeatures));
  }
  try {
    return ofClassifier(place, await openModel(place));
  } catch (error) {
    if (error instanceof FoundDualEncoder) return ofDualEncoder(place, error.model);
    throw error;
  }
}

/** @throws {InputError} If a measure looks at classes, and what makes features tells none apart. */
export function checkClassifies(
  { name, classifies }: Features,
  metrics: readonly Metric[],
): void {
  const metric = whoNeeds(metrics, "logits");
  if (classifies || !metric) return;
  throw new InputError(
    `${metric} looks at classes, which the dual encoder ${name} does not tell apart: give ` +
      "--features a classifier",
  );
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
    ...{ name, hash: hashBytes(bytes), isInception: true, classifies: true },
    open: (device) =>
      inceptionFeatures(device, tensors, { preprocessing: inceptions[name], what: weights }),
  };
}

function ofClassifier(name: string, model: Model): Features {
  const network = featureNetwork(model);
  return {
    ...{ name, hash: hashModel(model), shape: itemOf(network), isInception: false },
    classifies: true,
    ...(model.classes ? { classes: model.classes } : {}),
    open: (device) => classifierFeatures(device, model, { name, batchSize: BATCH }),
  };
}

function ofDualEncoder(name: string, model: DualEncoderModel): Features {
  return {
    ...{ name, hash: hashModel(model), shape: itemOf(model.network), isInception: false },
    classifies: false,
    open: (device) => dualEncoderFeatures(device, model, { name, batchSize: BATCH }),
  };
}
