/**
 * Transformers within UNets (Rombach et al., "High-resolution image synthesis with latent diffusion
 * models", 2022): pixels are tokens that attend to each other and to a text.
 *
 * @module
 */

import { attention as attend } from "../gpu/ops/attention.ts";
import { add, gelu, mul } from "../gpu/ops/map.ts";
import { splitHeads } from "../gpu/ops/matmul.ts";
import { permute, reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import {
  conv,
  jointLinear,
  type LayerContext,
  layerNorm,
  linear,
  norm,
  splitLinear,
} from "./layers.ts";

/** Added to variances of the pixels, whatever the rest of the network adds. */
const NORM_EPS = 1e-6;

/** The feed-forward layer's tokens are so many times as wide. */
const EXPANSION = 4;

/** What makes one transformer other than another. */
export interface TransformerOptions {
  /** Heads of attention. */
  readonly heads: number;
  /** Layers, one behind the other. */
  readonly depth: number;
  /** Whether it begins and ends with dense layers, not with convolutions. */
  readonly useLinearProjection: boolean;
  /** Whether tokens attend to the text where they would to each other. */
  readonly onlyCrossAttention?: boolean;
}

/**
 * Attention of tokens `[batch, tokens, channels]` to what is seen `[batch, ..., any]`, by default to
 * themselves.
 */
export function tokenAttention(
  net: LayerContext,
  name: string,
  x: Tensor,
  heads: number,
  seen = x,
): Tensor {
  const channels = x.shape[2];
  const [q, k, v] = seen === x ? jointLinear(net, name, ["to_q", "to_k", "to_v"], x, channels) : [
    linear(net, `${name}.to_q`, x, channels, { bias: false }),
    ...jointLinear(net, name, ["to_k", "to_v"], seen, channels),
  ];
  const mixed = attend(splitHeads(q, heads), splitHeads(k, heads), splitHeads(v, heads));
  return linear(
    net,
    `${name}.to_out.0`,
    reshape(permute(mixed, [0, 2, 1, 3]), x.shape),
    channels,
  );
}

/** Dense layers of which one gates the other by GELU (Shazeer 2020). */
function feedForward(net: LayerContext, name: string, x: Tensor): Tensor {
  const channels = x.shape[2], inner = EXPANSION * channels;
  const [value, gate] = splitLinear(net, `${name}.net.0.proj`, x, inner, 2);
  const gated = mul(value, gelu(gate));
  return linear(net, `${name}.net.2`, gated, channels);
}

/** Tokens attend to each other and to the text, and are transformed one by one. */
function transformerLayer(
  net: LayerContext,
  name: string,
  x: Tensor,
  text: Tensor,
  { heads, onlyCrossAttention }: TransformerOptions,
): Tensor {
  const normed = layerNorm(net, `${name}.norm1`, x);
  let h = add(
    x,
    tokenAttention(net, `${name}.attn1`, normed, heads, onlyCrossAttention ? text : normed),
  );
  h = add(
    h,
    tokenAttention(net, `${name}.attn2`, layerNorm(net, `${name}.norm2`, h), heads, text),
  );
  return add(h, feedForward(net, `${name}.ff`, layerNorm(net, `${name}.norm3`, h)));
}

/**
 * The transformer of diffusers' `Transformer2DModel`, plus the input. Its last layer starts at zero.
 *
 * @param x `[batch, height, width, channels]`
 * @param text `[batch, tokens, size]`
 */
export function transformer(
  net: LayerContext,
  name: string,
  x: Tensor,
  text: Tensor,
  options: TransformerOptions,
): Tensor {
  const [n, height, width, channels] = x.shape;
  const project = (part: string, x: Tensor, init: "xavier" | "zeros") =>
    options.useLinearProjection
      ? linear(net, `${name}.${part}`, x, channels, { init })
      : conv(net, `${name}.${part}`, x, channels, 1, { init });
  const start = project("proj_in", norm(net, `${name}.norm`, x, NORM_EPS), "xavier");
  let tokens = reshape(start, [n, height * width, channels]);
  for (let i = 0; i < options.depth; i++) {
    tokens = transformerLayer(net, `${name}.transformer_blocks.${i}`, tokens, text, options);
  }
  return add(x, project("proj_out", reshape(tokens, x.shape), "zeros"));
}
