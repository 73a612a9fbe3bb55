/**
 * The layers of diffusion UNets as functions of tensors: each asks for its parameters by the name
 * that diffusers' files give them.
 *
 * @module
 */

import type { Window } from "../gpu/convolution.ts";
import { conv2d, same } from "../gpu/ops/conv2d.ts";
import { groupNorm } from "../gpu/ops/group_norm.ts";
import { add, gelu, mish, mul, relu, silu } from "../gpu/ops/map.ts";
import { linear as linearOp, splitHeads } from "../gpu/ops/matmul.ts";
import { dropout, type RandomState } from "../gpu/ops/random.ts";
import { averagePool, upsampleNearest } from "../gpu/ops/resample.ts";
import { attention as attend } from "../gpu/ops/attention.ts";
import { permute, reshape, slice } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import { map } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ActivationName, UNetConfig } from "./config.ts";
import type { ParameterSource, ParameterSpec } from "./parameters.ts";

type Initializer = ParameterSpec["init"];

/** What all layers of a network share. */
export interface Network {
  readonly parameter: ParameterSource;
  readonly config: UNetConfig;
  /** Random numbers for dropout; without them nothing is dropped. */
  readonly random?: RandomState;
  /** Hands out a stream of random numbers for one use. */
  readonly nextStream: () => number;
}

const activations: Record<ActivationName, (x: Tensor) => Tensor> = {
  ...{ silu, swish: silu, mish, gelu, relu },
};

const weights = (net: Network, name: string, shape: readonly number[], init: Initializer) =>
  net.parameter({
    name: `${name}.weight`,
    shape,
    order: shape.length === 4 ? "conv" : "linear",
    init,
    isTrained: true,
  });

const vector = (net: Network, name: string, size: number, init: Initializer) =>
  net.parameter({ name, shape: [size], order: "plain", init, isTrained: true });

/** Convolution with bias from `name.weight` and `name.bias`. */
export function conv(
  net: Network,
  name: string,
  x: Tensor,
  channels: number,
  size: 1 | 3 = 3,
  { window = same(size), init = "xavier" }: { window?: Window; init?: Initializer } = {},
): Tensor {
  const weight = weights(net, name, [size, size, x.shape[3], channels], init);
  return conv2d(x, weight, vector(net, `${name}.bias`, channels, "zeros"), window);
}

/** Dense layer over the last axis; without `bias`, there is one but it is not added. */
export function linear(
  net: Network,
  name: string,
  x: Tensor,
  size: number,
  { init = "xavier", bias = true }: { init?: Initializer; bias?: boolean } = {},
): Tensor {
  const weight = weights(net, name, [x.shape.at(-1)!, size], init);
  const shift = vector(net, `${name}.bias`, size, "zeros");
  return linearOp(x, weight, bias ? shift : undefined);
}

/** Group normalisation. */
export function norm(net: Network, name: string, x: Tensor): Tensor {
  const { normNumGroups, normEps } = net.config, channels = x.shape.at(-1)!;
  const scale = vector(net, `${name}.weight`, channels, "ones");
  return groupNorm(
    x,
    scale,
    vector(net, `${name}.bias`, channels, "zeros"),
    normNumGroups,
    normEps,
  );
}

/** Two dense layers with SiLU between them: vectors of timesteps or classes. */
export function embeddingMlp(net: Network, name: string, x: Tensor, size: number): Tensor {
  return linear(net, `${name}.linear_2`, silu(linear(net, `${name}.linear_1`, x, size)), size);
}

/** Settings of a residual block that most blocks leave alone. */
export interface ResnetOptions {
  /** Change of resolution within the block. */
  readonly resample?: "up" | "down";
  /** Divides the sum. */
  readonly scaleFactor?: number;
}

/**
 * Residual block: norm, activation, convolution, timestep, norm, activation, convolution, plus the
 * input. The second convolution starts at zero, so that the block starts as the identity.
 */
export function resnet(
  net: Network,
  name: string,
  x: Tensor,
  embedding: Tensor,
  channels: number,
  { resample, scaleFactor = 1 }: ResnetOptions = {},
): Tensor {
  const { actFn, resnetTimeScaleShift, dropout: rate } = net.config;
  const activate = activations[actFn];
  const resize = { up: upsampleNearest, down: averagePool, none: (x: Tensor) => x }[
    resample ?? "none"
  ];
  const isScaled = resnetTimeScaleShift === "scale_shift";

  const size = isScaled ? 2 * channels : channels;
  const projected = linear(net, `${name}.time_emb_proj`, activate(embedding), size);
  const time = reshape(projected, [projected.shape[0], 1, 1, size]);
  let h = conv(net, `${name}.conv1`, resize(activate(norm(net, `${name}.norm1`, x))), channels);
  if (!isScaled) h = add(h, time);
  h = norm(net, `${name}.norm2`, h);
  if (isScaled) {
    const scale = slice(time, 3, 0, channels), shift = slice(time, 3, channels, channels);
    h = map([h, scale, shift], (h, scale, shift) => e.add(e.mul(h, e.add(scale, 1)), shift));
  }
  h = activate(h);
  if (net.random) h = dropout(h, rate, net.random, net.nextStream());
  h = conv(net, `${name}.conv2`, h, channels, 3, { init: "zeros" });
  const skip = resize(x);
  const shortcut = x.shape[3] === channels
    ? skip
    : conv(net, `${name}.conv_shortcut`, skip, channels, 1);
  return scaleFactor === 1 ? add(shortcut, h) : mul(add(shortcut, h), 1 / scaleFactor);
}

/** Self-attention over all pixels, plus the input. The last layer starts at zero. */
export function attention(
  net: Network,
  name: string,
  x: Tensor,
  { scaleFactor = 1, isNormed = true }: { scaleFactor?: number; isNormed?: boolean } = {},
): Tensor {
  const [n, height, width, channels] = x.shape, { attentionHeadDim } = net.config;
  const size = attentionHeadDim ?? channels, heads = Math.floor(channels / size);
  const normed = isNormed ? norm(net, `${name}.group_norm`, x) : x;
  const pixels = reshape(normed, [n, height * width, channels]);
  const project = (part: string, bias: boolean) => {
    const x = linear(net, `${name}.${part}`, pixels, heads * size, { bias });
    return splitHeads(x, heads);
  };
  // The bias of the keys adds the same to all scores of a query, which softmax cancels: leaving it
  // out changes nothing, and keeps the noise of a gradient that is zero away from the optimizer.
  const [q, k, v] = [project("to_q", true), project("to_k", false), project("to_v", true)];
  const mixed = permute(attend(q, k, v), [0, 2, 1, 3]);
  const joined = reshape(mixed, [n, height * width, heads * size]);
  const out = reshape(
    linear(net, `${name}.to_out.0`, joined, channels, { init: "zeros" }),
    x.shape,
  );
  return scaleFactor === 1 ? add(x, out) : mul(add(x, out), 1 / scaleFactor);
}

/** Halves the resolution by a convolution with stride 2. */
export function downsample(net: Network, name: string, x: Tensor): Tensor {
  // Without padding, diffusers (and TensorFlow's SAME) pads right and bottom.
  const before = net.config.downsamplePadding;
  const window: Window = { stride: 2, padding: [before, 1, before, 1] };
  return conv(net, `${name}.conv`, x, x.shape[3], 3, { window });
}

/** Doubles the resolution by repeating pixels, then convolves. */
export function upsample(net: Network, name: string, x: Tensor): Tensor {
  return conv(net, `${name}.conv`, upsampleNearest(x), x.shape[3]);
}
