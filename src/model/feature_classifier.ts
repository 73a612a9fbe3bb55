/**
 * A small classifier of pictures without noise, whose last hidden layer tells what a picture looks
 * like: 3 × 3 convolutions, of which all but the first halve the size, and two dense layers.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import { conv2d, same } from "../gpu/ops/conv2d.ts";
import { relu } from "../gpu/ops/map.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { formatShape, sizeOf } from "../shape.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";
import type { ParameterSource } from "./parameters.ts";

/** What the class of networks is called in files. */
export const FEATURE_CLASSIFIER = "FeatureClassifier";

const side = z.int().min(1).max(4096), width = z.int().min(1).max(65536);
/** Of the fields as they are in files. */
export const featureClassifierSchema = z.strictObject({
  sample_size: z.union([side.transform((n) => [n, n]), z.tuple([side, side])]).default([28, 28]),
  in_channels: z.int().min(1).max(4).default(1),
  num_classes: width.default(10),
  block_out_channels: z.array(width).min(1).max(10).default([16, 32, 48, 48]),
  feature_size: width.default(64),
});

/** The architecture, its fields as they are in files. */
export type FeatureClassifierConfig = z.infer<typeof featureClassifierSchema>;

/** A layer's weights and bias. */
function layer(parameter: ParameterSource, name: string, shape: readonly number[]) {
  const order = shape.length === 4 ? "conv" : "linear", size = shape[order === "conv" ? 3 : 0];
  const common = { isTrained: true } as const;
  return [
    parameter({ name: `${name}.weight`, shape, order, init: "xavier", ...common }),
    parameter({ name: `${name}.bias`, shape: [size], order: "plain", init: "zeros", ...common }),
  ] as const;
}

/** Half as many rows and columns, rounded up. */
const halving = { stride: 2, padding: [1, 1, 1, 1] } as const;

/** What it makes of pictures `[batch, height, width, channels]` in [-1, 1]. */
function look(config: FeatureClassifierConfig, parameter: ParameterSource, pictures: Tensor) {
  const { block_out_channels: channels, feature_size: features, num_classes: classes } = config;
  const shape = [...config.sample_size, config.in_channels], [batch, ...given] = pictures.shape;
  if (given.join() !== shape.join()) {
    throw new InputError(
      `The classifier is for pictures of ${formatShape(shape)}, not of ${formatShape(given)}`,
    );
  }
  let h = pictures;
  channels.forEach((size, i) => {
    const [weight, bias] = layer(parameter, `convs.${i}`, [3, 3, h.shape[3], size]);
    h = relu(conv2d(h, weight, bias, i ? halving : same(3)));
  });
  const dense = (name: string, x: Tensor, size: number) =>
    linear(x, ...layer(parameter, name, [size, x.shape[1]]));
  const flat = reshape(h, [batch, sizeOf(h.shape.slice(1))]);
  const hidden = relu(dense("features", flat, features));
  return { features: hidden, logits: dense("classifier", hidden, classes) };
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
    itemShape: [...config.sample_size, config.in_channels],
    classes: config.num_classes,
    features: {
      width: config.feature_size,
      forward: ({ parameter }, items) => look(config, parameter, items),
    },
    conditions: () => ({}),
    forward: ({ parameter }, { sample }) => look(config, parameter, sample).logits,
  }),
});
registerNetwork(featureClassifier);
