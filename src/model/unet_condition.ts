/**
 * A UNet that is told what to paint by the states of a text encoder, that of Rombach et al.
 * ("High-resolution image synthesis with latent diffusion models", 2022) and of Stable Diffusion, with
 * the options of diffusers' `UNet2DConditionModel`.
 *
 * Its conditions are `encoder_hidden_states`, a row for each token of a text, which must be given; class
 * `labels` where it has classes; and where it was made to fill holes, which its channels tell (latents,
 * mask and masked image: twice as many as it predicts, and one), `mask`, 1 where it is to paint, and
 * `masked_image`, the latents of the image without that part.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { concat } from "../gpu/ops/concat.ts";
import { map, silu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Conditions } from "../diffusion/denoiser.ts";
import type { Shape } from "../shape.ts";
import { checkSize } from "./image_size.ts";
import { conv, downsample, type LayerContext, norm, resnet, upsample } from "./layers.ts";
import {
  defineNetwork,
  type Forward,
  type NetworkInputs,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { transformer } from "./transformer_layers.ts";
import { embed, type Segments, segmentsOf, unet2d, unetConditions } from "./unet.ts";
import {
  formatUNetConditionConfig,
  parseUNetConditionConfig,
  type UNetConditionConfig,
} from "./unet_condition_config.ts";

/** Layers of the network, and what they share. */
interface Parts {
  readonly net: LayerContext<UNetConditionConfig>;
  readonly time: Tensor;
  /** Its attention is told the level. */
  readonly segments: Segments<[level: number]>;
}

/** Whether it is shown a mask and an image beside latents. */
const fillsHoles = ({ inChannels, outChannels }: UNetConditionConfig) =>
  inChannels === 2 * outChannels + 1;

/** What sides of images must be multiples of: of nothing, where none of their last pixels is lost. */
export const multipleOf = (
  { downsamplePadding, blockOutChannels: { length } }: UNetConditionConfig,
) => downsamplePadding ? 1 : 2 ** (length - 1);

function conditions(config: UNetConditionConfig, [height, width]: Shape): Conditions {
  const { encoderSequenceLength, crossAttentionDim, outChannels } = config;
  return {
    ...unetConditions(config),
    encoder_hidden_states: {
      ...{ shape: [encoderSequenceLength, crossAttentionDim], dtype: "f32", hasNegative: true },
    },
    ...(fillsHoles(config)
      ? {
        mask: { shape: [height, width, 1], dtype: "f32" },
        masked_image: { shape: [height, width, outChannels], dtype: "f32" },
      }
      : {}),
  };
}

/** @throws {InputError} If it is missing. */
function conditionIn({ conditions }: NetworkInputs, name: string, what: string): Tensor {
  if (conditions[name]) return conditions[name];
  throw new InputError(`The network is told ${what}: the condition ${name} is missing`);
}

/** The prediction `[batch, height, width, outChannels]`. */
export function unetCondition(
  config: UNetConditionConfig,
  { parameter, random, firstStream = 0, onSegment }: Forward,
  inputs: NetworkInputs,
): Tensor {
  const { sample, timestep, conditions: { labels } } = inputs;
  const { blockOutChannels, upBlockTypes, layersPerBlock, outChannels } = config;
  const levels = blockOutChannels.length, last = levels - 1;
  const itemChannels = fillsHoles(config) ? outChannels : config.inChannels;
  checkSize(sample, itemChannels, multipleOf(config) === 1 ? 1 : levels);
  const text = conditionIn(inputs, "encoder_hidden_states", "what to paint");
  const shown = fillsHoles(config)
    ? ["mask", "masked_image"].map((name) => conditionIn(inputs, name, "what to fill"))
    : [];
  let stream = firstStream;
  const net: LayerContext<UNetConditionConfig> = {
    ...{ config, parameter, nextStream: () => stream++, projections: new Map() },
    ...(random ? { random } : {}),
  };
  const time = embed(net, timestep, labels), all = concat([sample, ...shown], 3);
  const x = config.centerInputSample ? map([all], (x) => e.sub(e.mul(x, 2), 1)) : all;
  const skips = [conv(net, "conv_in", x, blockOutChannels[0], config.convInKernel)];
  const segments = segmentsOf(
    skips[0],
    onSegment,
    (name, x, level: number) =>
      transformer(net, name, x, text, {
        heads: config.numAttentionHeads[level],
        depth: config.transformerLayersPerBlock[level],
        useLinearProjection: config.useLinearProjection,
        // The middle block never leaves out the attention of pixels to each other.
        onlyCrossAttention: config.onlyCrossAttention[level] && !name.startsWith("mid_block"),
      }),
  );
  const parts: Parts = { net, time, segments };
  let h = encode(parts, skips);
  upBlockTypes.forEach((type, i) => {
    const block = `up_blocks.${i}`, level = last - i;
    for (let j = 0; j <= layersPerBlock[level]; j++) {
      const joined = concat([h, skips.pop()!], 3);
      h = resnet(net, `${block}.resnets.${j}`, joined, time, blockOutChannels[level]);
      if (type === "CrossAttnUpBlock2D") {
        h = segments.attend(`${block}.attentions.${j}`, h, level);
      }
      segments.keep(h);
    }
    if (i === last) return;
    h = upsample(net, `${block}.upsamplers.0`, h, skips.at(-1)!.shape.slice(1, 3));
    segments.keep(h);
  });
  h = silu(norm(net, "conv_norm_out", h));
  return conv(net, "conv_out", h, outChannels, config.convOutKernel, { init: "zeros" });
}

/**
 * The blocks on the way down and the middle one.
 *
 * @param skips Begins with what it starts from; what the way up is shown is added to it.
 */
function encode({ net, time, segments: { keep, attend } }: Parts, skips: Tensor[]): Tensor {
  const { config } = net, { blockOutChannels, layersPerBlock } = config;
  const last = blockOutChannels.length - 1;
  let [h] = skips;
  config.downBlockTypes.forEach((type, level) => {
    const block = `down_blocks.${level}`;
    for (let j = 0; j < layersPerBlock[level]; j++) {
      h = resnet(net, `${block}.resnets.${j}`, h, time, blockOutChannels[level]);
      if (type === "CrossAttnDownBlock2D") h = attend(`${block}.attentions.${j}`, h, level);
      keep(h);
      skips.push(h);
    }
    if (level === last) return;
    h = downsample(net, `${block}.downsamplers.0`, h);
    keep(h);
    skips.push(h);
  });
  if (config.midBlockType === null) return h;
  const width = blockOutChannels[last], middle = { scaleFactor: config.midBlockScaleFactor };
  h = resnet(net, "mid_block.resnets.0", h, time, width, middle);
  h = attend("mid_block.attentions.0", h, last);
  h = resnet(net, "mid_block.resnets.1", h, time, width, middle);
  keep(h);
  return h;
}

/** The class of networks. */
export const unet2dCondition: NetworkMaker<UNetConditionConfig> = defineNetwork({
  className: "UNet2DConditionModel",
  parse: parseUNetConditionConfig,
  format: formatUNetConditionConfig,
  resize: unet2d.resize,
  build: (config) => ({
    kind: "denoiser",
    itemShape: [
      ...(config.sampleSize ?? [null, null]),
      fillsHoles(config) ? config.outChannels : config.inChannels,
    ],
    multiple: multipleOf(config),
    outChannels: config.outChannels,
    hasDropout: config.dropout > 0,
    conditions: (item) => conditions(config, item),
    forward: (forward, inputs) => unetCondition(config, forward, inputs),
  }),
});
registerNetwork(unet2dCondition);
