/**
 * Encoder and decoder of latent diffusion's autoencoders (Rombach et al., "High-resolution image
 * synthesis with latent diffusion models", 2022), with diffusers' names.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { silu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { AutoencoderConfig } from "./autoencoder_config.ts";
import { checkSize } from "./image_size.ts";
import {
  attention,
  conv,
  downsample,
  type LayerConfig,
  type LayerContext,
  norm,
  resnet,
  upsample,
} from "./layers.ts";
import type { Forward } from "./network.ts";
import { type Segments, segmentsOf } from "./unet.ts";
import type { UNetConfig } from "./unet_config.ts";

type Config =
  & AutoencoderConfig
  & LayerConfig
  & Pick<UNetConfig, "attentionHeadDim" | "downsamplePadding">;

/** What the layers of an autoencoder are told. */
export type AutoencoderContext = LayerContext<Config> & Pick<Forward, "onSegment">;

/** A forward pass as layers want it. */
export function layersOf(
  config: AutoencoderConfig,
  { parameter, onSegment }: Forward,
): AutoencoderContext {
  return {
    // A single head, and zeros at the right and the bottom only.
    config: { ...config, normEps: 1e-6, attentionHeadDim: null, downsamplePadding: 0 },
    ...{ parameter, nextStream: () => 0, projections: new Map() },
    ...(onSegment ? { onSegment } : {}),
  };
}

/** How many times smaller than pictures latents are. */
export const factorOfLevels = ({ blockOutChannels }: AutoencoderConfig): number =>
  2 ** (blockOutChannels.length - 1);

/** Segments of a half from its first layer on. */
const segments = (net: AutoencoderContext, start: Tensor) =>
  segmentsOf(start, net.onSegment, (name, x) => attention(net, name, x));

/** The block of the lowest resolution. */
function middle(
  net: AutoencoderContext,
  name: string,
  x: Tensor,
  attend: Segments["attend"],
): Tensor {
  const channels = x.shape[3];
  let h = resnet(net, `${name}.resnets.0`, x, undefined, channels);
  if (net.config.midBlockAddAttention) h = attend(`${name}.attentions.0`, h);
  return resnet(net, `${name}.resnets.1`, h, undefined, channels);
}

/**
 * Pictures `[batch, height, width, channels]` as `[batch, height / factor, width / factor, channels]`.
 *
 * @param channels Of the result.
 * @throws {InputError} If they do not fit the network.
 */
export function encoder(net: AutoencoderContext, pictures: Tensor, channels: number): Tensor {
  const { config } = net, { blockOutChannels, downBlockTypes, layersPerBlock } = config;
  checkSize(pictures, config.inChannels, blockOutChannels.length);
  let h = conv(net, "encoder.conv_in", pictures, blockOutChannels[0]);
  const { keep, attend } = segments(net, h);
  downBlockTypes.forEach((type, i) => {
    const block = `encoder.down_blocks.${i}`;
    for (let j = 0; j < layersPerBlock; j++) {
      h = resnet(net, `${block}.resnets.${j}`, h, undefined, blockOutChannels[i]);
      if (type.startsWith("Attn")) h = attend(`${block}.attentions.${j}`, h);
    }
    if (i < downBlockTypes.length - 1) h = downsample(net, `${block}.downsamplers.0`, h);
    keep(h);
  });
  h = middle(net, "encoder.mid_block", h, attend);
  keep(h);
  return conv(net, "encoder.conv_out", silu(norm(net, "encoder.conv_norm_out", h)), channels);
}

/** Latents, after whatever precedes it, as pictures. */
export function decoder(net: AutoencoderContext, latents: Tensor): Tensor {
  const { config } = net, { upBlockTypes, layersPerBlock } = config;
  const channels = config.blockOutChannels.toReversed();
  let h = conv(net, "decoder.conv_in", latents, channels[0]);
  const { keep, attend } = segments(net, h);
  h = middle(net, "decoder.mid_block", h, attend);
  keep(h);
  upBlockTypes.forEach((type, i) => {
    const block = `decoder.up_blocks.${i}`;
    for (let j = 0; j <= layersPerBlock; j++) {
      h = resnet(net, `${block}.resnets.${j}`, h, undefined, channels[i]);
      if (type.startsWith("Attn")) h = attend(`${block}.attentions.${j}`, h);
    }
    if (i < upBlockTypes.length - 1) h = upsample(net, `${block}.upsamplers.0`, h);
    keep(h);
  });
  h = silu(norm(net, "decoder.conv_norm_out", h));
  return conv(net, "decoder.conv_out", h, config.outChannels);
}

/** @throws {InputError} If latents have other channels than the network's. */
export function checkLatents({ shape }: Tensor, channels: number): void {
  if (shape.length === 4 && shape[3] === channels) return;
  throw new InputError(`The network decodes latents of ${channels} channels, not ${shape.at(-1)}`);
}
