/**
 * A small classifier of pictures without noise, whose last hidden layer tells what a picture looks
 * like: 3 × 3 convolutions, of which all but the first halve the size, and two dense layers.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { relu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { convolutionFields, convolutions, pictureShape, widthSchema } from "./convolutions.ts";
import { linear, type WithParameters } from "./layers.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";

/** What the class of networks is called in files. */
export const FEATURE_CLASSIFIER = "FeatureClassifier";

const { block_out_channels, ...pictures } = convolutionFields;
/** Of the fields as they are in files, in the order that hashes of features know. */
export const featureClassifierSchema = z.strictObject({
  ...pictures,
  num_classes: widthSchema.default(10),
  block_out_channels,
  feature_size: widthSchema.default(64),
});

/** The architecture, its fields as they are in files. */
export type FeatureClassifierConfig = z.infer<typeof featureClassifierSchema>;

/** What it makes of pictures `[batch, height, width, channels]` in [-1, 1]. */
function look(config: FeatureClassifierConfig, net: WithParameters, pictures: Tensor) {
  const flat = convolutions(net, config, pictures);
  const features = relu(linear(net, "features", flat, config.feature_size));
  return { features, logits: linear(net, "classifier", features, config.num_classes) };
}

/** The class of networks. */
export const featureClassifier: NetworkMaker<FeatureClassifierConfig> = defineNetwork({
  className: FEATURE_CLASSIFIER,
  parse: (fields) =>
    parseWith(featureClassifierSchema, givenFields(fields), "network configuration"),
  format: (config) => config,
  resize: ([height, width]) => ({ sample_size: [height, width] }),
  build: (config) => ({
    kind: "classifier",
    itemShape: pictureShape(config),
    classes: config.num_classes,
    features: {
      width: config.feature_size,
      forward: (forward, items) => look(config, forward, items),
    },
    conditions: () => ({}),
    forward: (forward, { sample }) => look(config, forward, sample).logits,
  }),
});
registerNetwork(featureClassifier);
