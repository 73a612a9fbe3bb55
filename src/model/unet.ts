/**
 * The UNet of Ho et al. ("Denoising diffusion probabilistic models", 2020) with the options of
 * diffusers' `UNet2DModel`, as a function of tensors.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { concat } from "../gpu/ops/concat.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, div, map, silu } from "../gpu/ops/map.ts";
import { reshape } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Conditions } from "../diffusion/denoiser.ts";
import { formatUNetConfig, parseUNetConfig, type UNetConfig } from "./unet_config.ts";
import { checkSize } from "./image_size.ts";
import {
  attention,
  conv,
  downsample,
  embeddingMlp,
  type LayerConfig,
  type LayerContext,
  linear,
  norm,
  resnet,
  upsample,
} from "./layers.ts";
import {
  defineNetwork,
  type Forward,
  type NetworkInputs,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { fourierEmbedding, sinusoidalEmbedding } from "./time_embedding.ts";

/**
 * The prediction `[batch, height, width, outChannels]`.
 *
 * @param embedding What is added to the vector of the timestep, for networks that are told more.
 * @throws {InputError} If the images do not fit the network.
 */
export function unet(
  config: UNetConfig,
  { parameter, random, firstStream = 0, onSegment }: Forward,
  { sample, timestep, conditions: { labels } }: NetworkInputs,
  embedding?: (net: LayerContext<UNetConfig>) => Tensor,
): Tensor {
  checkSize(sample, config.inChannels, config.blockOutChannels.length);
  let stream = firstStream;
  const net: LayerContext<UNetConfig> = {
    config,
    parameter,
    nextStream: () => stream++,
    projections: new Map(),
    ...(random ? { random } : {}),
  };
  const { blockOutChannels, upBlockTypes, layersPerBlock } = config;
  const last = blockOutChannels.length - 1;
  const told = embed(net, timestep, labels), time = embedding ? add(told, embedding(net)) : told;

  const x = config.centerInputSample ? map([sample], (x) => e.sub(e.mul(x, 2), 1)) : sample;
  const skips = [conv(net, "conv_in", x, blockOutChannels[0])];
  const attendAll = (name: string, x: Tensor) => attention(net, name, x);
  const segments = segmentsOf(skips[0], onSegment, attendAll), { keep, attend } = segments;
  let h = encode(net, skips, time, segments);
  upBlockTypes.forEach((type, i) => {
    const block = `up_blocks.${i}`, hasAttention = type === "AttnUpBlock2D";
    const channels = blockOutChannels[last - i];
    for (let j = 0; j <= layersPerBlock; j++) {
      h = resnet(net, `${block}.resnets.${j}`, concat([h, skips.pop()!], 3), time, channels);
      if (hasAttention) h = attend(`${block}.attentions.${j}`, h);
      keep(h);
    }
    if (i === last) return;
    const name = `${block}.upsamplers.0`;
    h = hasAttention && config.upsampleType === "resnet"
      ? resnet(net, name, h, time, channels, { resample: "up" })
      : upsample(net, name, h);
    keep(h);
  });

  h = silu(norm(net, "conv_norm_out", h));
  const out = conv(net, "conv_out", h, config.outChannels, 3, { init: "zeros" });
  if (config.timeEmbeddingType !== "fourier") return out;
  return div(out, reshape(timestep, [timestep.shape[0], 1, 1, 1]));
}

/** Blocks and attention as they are made, told to whoever computes some of them again. */
export interface Segments<Options extends readonly unknown[] = []> {
  /** Ends a block. */
  readonly keep: (to: Tensor) => void;
  /** Attention that may be one. */
  readonly attend: (name: string, x: Tensor, ...options: Options) => Tensor;
}

/**
 * Tells of segments from `start` on.
 *
 * @param attend The attention of the network.
 */
export function segmentsOf<Options extends readonly unknown[]>(
  start: Tensor,
  onSegment: Forward["onSegment"],
  attend: Segments<Options>["attend"],
): Segments<Options> {
  let from = start;
  return {
    keep(to) {
      onSegment?.("block", { from, to });
      from = to;
    },
    attend(name, x, ...options) {
      const to = attend(name, x, ...options);
      onSegment?.("attention", { from: x, to });
      return to;
    },
  };
}

/**
 * The encoder: the blocks on the way down and the middle one.
 *
 * @param skips Begins with what it starts from; what the decoder is shown is added to it.
 */
export function encode(
  net: LayerContext<UNetConfig>,
  skips: Tensor[],
  time: Tensor,
  { keep, attend }: Segments,
): Tensor {
  const { config } = net, { blockOutChannels, downBlockTypes, layersPerBlock } = config;
  const last = blockOutChannels.length - 1;
  let [h] = skips;
  downBlockTypes.forEach((type, i) => {
    const block = `down_blocks.${i}`, hasAttention = type === "AttnDownBlock2D";
    for (let j = 0; j < layersPerBlock; j++) {
      h = resnet(net, `${block}.resnets.${j}`, h, time, blockOutChannels[i]);
      if (hasAttention) h = attend(`${block}.attentions.${j}`, h);
      keep(h);
      skips.push(h);
    }
    if (i === last) return;
    const name = `${block}.downsamplers.0`;
    h = hasAttention && config.downsampleType === "resnet"
      ? resnet(net, name, h, time, blockOutChannels[i], { resample: "down" })
      : downsample(net, name, h);
    keep(h);
    skips.push(h);
  });

  const middle = { scaleFactor: config.midBlockScaleFactor };
  h = resnet(net, "mid_block.resnets.0", h, time, blockOutChannels[last], middle);
  if (config.addAttention) {
    const isNormed = config.resnetTimeScaleShift === "default";
    // It has the fewest pixels: keeping what it takes costs little.
    h = attention(net, "mid_block.attentions.0", h, { ...middle, isNormed });
  }
  keep(h);
  h = resnet(net, "mid_block.resnets.1", h, time, blockOutChannels[last], middle);
  keep(h);
  return h;
}

/** What the vector of timestep and class depends on. */
export interface EmbeddingConfig extends
  Pick<
    UNetConfig,
    "blockOutChannels" | "timeEmbeddingType" | "freqShift" | "flipSinToCos" | "numClassEmbeds"
  > {
  /** How labels become vectors. */
  readonly classEmbedType: UNetConfig["classEmbedType"] | "projection" | "simple_projection";
  /** Numbers that a label has which is projected. */
  readonly projectionClassEmbeddingsInputDim?: number | null;
}

/** The vector of timestep and class, `[batch, 4 · channels]`. */
export function embed(
  net: LayerContext<LayerConfig & EmbeddingConfig>,
  timestep: Tensor,
  labels: Tensor | undefined,
): Tensor {
  const { config } = net, channels = config.blockOutChannels[0], size = 4 * channels;
  const frequencies = config.timeEmbeddingType === "fourier"
    ? net.parameter({
      name: "time_proj.weight",
      shape: [channels],
      order: "plain",
      init: "normal",
      isTrained: false,
    })
    : undefined;
  const sinusoid = (t: Tensor) =>
    frequencies
      ? fourierEmbedding(t, frequencies)
      : sinusoidalEmbedding(t, channels, config.freqShift, config.flipSinToCos);
  const time = embeddingMlp(net, "time_embedding", sinusoid(timestep), size);
  if (config.classEmbedType === null && config.numClassEmbeds === null) return time;
  if (!labels) throw new InputError("The network has classes: class labels are missing");
  switch (config.classEmbedType) {
    case "timestep":
      return add(time, embeddingMlp(net, "class_embedding", sinusoid(labels), size));
    case "identity":
      return add(time, labels);
    case "projection":
      return add(time, embeddingMlp(net, "class_embedding", labels, size));
    case "simple_projection":
      return add(time, linear(net, "class_embedding", labels, size));
    case null: {
      const table = net.parameter({
        name: "class_embedding.weight",
        shape: [config.numClassEmbeds!, size],
        order: "plain",
        init: "normal",
        isTrained: true,
      });
      return add(time, gather(table, labels));
    }
  }
}

/** What a UNet is told of classes. */
export function unetConditions(
  { classEmbedType, numClassEmbeds, blockOutChannels, projectionClassEmbeddingsInputDim }:
    EmbeddingConfig,
): Conditions {
  switch (classEmbedType) {
    case "timestep":
      return { labels: { shape: [], dtype: "f32" } };
    case "identity":
      return { labels: { shape: [4 * blockOutChannels[0]], dtype: "f32" } };
    case "projection":
    case "simple_projection":
      return { labels: { shape: [projectionClassEmbeddingsInputDim!], dtype: "f32" } };
    case null:
      return numClassEmbeds === null
        ? {}
        : { labels: { shape: [], dtype: "i32", below: numClassEmbeds } };
  }
}

/** The class of networks. */
export const unet2d: NetworkMaker<UNetConfig> = defineNetwork({
  className: "UNet2DModel",
  parse: parseUNetConfig,
  format: formatUNetConfig,
  resize: ([height, width]) => ({ sample_size: height === width ? width : [height, width] }),
  build: (config) => ({
    kind: "denoiser",
    itemShape: [...(config.sampleSize ?? [null, null]), config.inChannels],
    multiple: 2 ** (config.blockOutChannels.length - 1),
    outChannels: config.outChannels,
    hasDropout: config.dropout > 0,
    conditions: () => unetConditions(config),
    forward: (forward, inputs) => unet(config, forward, inputs),
  }),
});
registerNetwork(unet2d);
