/**
 * The classifier of noised images of Dhariwal and Nichol 2021 ("Diffusion models beat GANs on image
 * synthesis", section 4): the encoder of a UNet, the mean over all pixels, and a dense layer.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../config.ts";
import { silu } from "../gpu/ops/map.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { mean } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { checkSize } from "./image_size.ts";
import { attention, conv, type LayerContext, norm } from "./layers.ts";
import {
  defineNetwork,
  type Fields,
  type Forward,
  type NetworkInputs,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { embed, encode, segmentsOf } from "./unet.ts";
import { parseUNetConfig, type UNetConfig, unetSchema } from "./unet_config.ts";

/** The fields of a UNet's encoder, as in files of `UNet2DModel`, and how many classes there are. */
export const unetClassifierSchema = unetSchema.pick({
  ...{ sample_size: true, in_channels: true, down_block_types: true, block_out_channels: true },
  ...{ layers_per_block: true, downsample_padding: true, downsample_type: true, act_fn: true },
  ...{ attention_head_dim: true, norm_num_groups: true, norm_eps: true, add_attention: true },
  ...{ resnet_time_scale_shift: true, freq_shift: true, flip_sin_to_cos: true, dropout: true },
}).extend({ num_classes: z.int().min(1).max(65536).default(1000) });

/** The architecture of a classifier. */
export interface UNetClassifierConfig {
  /** As it is written. */
  readonly fields: Fields;
  /** A UNet with the same encoder. */
  readonly encoder: UNetConfig;
  /** How many classes it tells apart. */
  readonly numClasses: number;
}

function parse(json: Fields): UNetClassifierConfig {
  const known = Object.entries(json).filter(([key]) => !key.startsWith("_"));
  const fields = parseWith(
    unetClassifierSchema,
    Object.fromEntries(known),
    "configuration of a UNet2DClassifier",
  );
  const { num_classes: numClasses, ...encoder } = fields;
  const up_block_types = encoder.down_block_types.map((type) => type.replace("Down", "Up"));
  return { fields, numClasses, encoder: parseUNetConfig({ ...encoder, up_block_types }) };
}

/** Logits `[batch, classes]`. */
function classify(
  { encoder: config, numClasses }: UNetClassifierConfig,
  { parameter, random, firstStream = 0, onSegment }: Forward,
  { sample, timestep }: NetworkInputs,
): Tensor {
  checkSize(sample, config.inChannels, config.blockOutChannels.length);
  let stream = firstStream;
  const net: LayerContext<UNetConfig> = {
    ...{ config, parameter, projections: new Map() },
    nextStream: () => stream++,
    ...(random ? { random } : {}),
  };
  const time = embed(net, timestep, undefined);
  const first = conv(net, "conv_in", sample, config.blockOutChannels[0]);
  const attend = (name: string, x: Tensor) => attention(net, name, x);
  const last = encode(net, [first], time, segmentsOf(first, onSegment, attend));
  const h = silu(norm(net, "conv_norm_out", last)), [batch, , , channels] = h.shape;
  const weight = parameter({
    ...{ name: "classifier.weight", shape: [numClasses, channels], order: "linear" },
    ...{ init: "xavier", isTrained: true },
  });
  const bias = parameter({
    ...{ name: "classifier.bias", shape: [numClasses], order: "plain" },
    ...{ init: "zeros", isTrained: true },
  });
  return linear(reshape(mean(h, [1, 2]), [batch, channels]), weight, bias);
}

/** The class of networks. */
export const unetClassifier: NetworkMaker<UNetClassifierConfig> = defineNetwork({
  className: "UNet2DClassifier",
  parse,
  format: ({ fields }) => fields,
  resize: ([height, width]) => ({ sample_size: height === width ? width : [height, width] }),
  build: (config) => ({
    kind: "classifier",
    itemShape: [...(config.encoder.sampleSize ?? [null, null]), config.encoder.inChannels],
    multiple: 2 ** (config.encoder.blockOutChannels.length - 1),
    classes: config.numClasses,
    hasDropout: config.encoder.dropout > 0,
    conditions: () => ({}),
    forward: (forward, inputs) => classify(config, forward, inputs),
  }),
});
registerNetwork(unetClassifier);
