/**
 * What `--features` names.
 *
 * @module
 */

import { classifierFeatures, featureNetwork } from "../../evaluate/classifier_features.ts";
import type { FeatureExtractor } from "../../evaluate/feature_extractor.ts";
import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { itemOf } from "../../model/network.ts";
import { fetchFeatures, type ShippedFeatures, shippedFeatures } from "../../model/pretrained.ts";
import type { Shape } from "../../shape.ts";
import { openModel } from "../run/open_model.ts";
import { hashModel } from "./hashes.ts";

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

/**
 * The features of a name, a file or the folder of a training.
 *
 * @throws {InputError} If there are none.
 */
export async function readFeatures(place: string): Promise<Features> {
  // Networks that are no models of this program, as Inception v3, are further names here.
  return shippedFeatures.some((name) => name === place)
    ? ofClassifier(place, await fetchFeatures(place as ShippedFeatures))
    : ofClassifier(place, await openModel(place));
}

function ofClassifier(name: string, model: Model): Features {
  const network = featureNetwork(model);
  return {
    ...{ name, hash: hashModel(model), shape: itemOf(network), isInception: false },
    ...(model.classes ? { classes: model.classes } : {}),
    open: (device) => classifierFeatures(device, model, { name, batchSize: BATCH }),
  };
}
