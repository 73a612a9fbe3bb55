/**
 * The layers of diffusion UNets as functions of tensors: each asks for its parameters by the name
 * that diffusers' files give them.
 *
 * @module
 */

import type { Window } from "../gpu/convolution.ts";
import { conv2d, same } from "../gpu/ops/conv2d.ts";
import { groupNorm } from "../gpu/ops/group_norm.ts";
import { layerNorm as layerNormOp } from "../gpu/ops/layer_norm.ts";
import { add, gelu, mish, mul, relu, silu } from "../gpu/ops/map.ts";
import { linear as linearOp, splitHeads } from "../gpu/ops/matmul.ts";
import { dropout, type RandomState } from "../gpu/ops/random.ts";
import { averagePool, upsampleNearest } from "../gpu/ops/resample.ts";
import { attention as attend } from "../gpu/ops/attention.ts";
import { partOf, permute, reshape, slice } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import { map } from "../gpu/ops/map.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";

import type { ActivationName, UNetConfig } from "./unet_config.ts";
import { type ParameterSource, type ParameterSpec, wholeOf } from "./parameters.ts";

type Initializer = ParameterSpec["init"];

/** What layers are told of their network. */
export type LayerConfig =
  & Pick<UNetConfig, "actFn" | "normNumGroups" | "normEps">
  & Partial<Pick<UNetConfig, "resnetTimeScaleShift" | "dropout">>;

/** What all layers of a network share. */
export interface LayerContext<C extends LayerConfig = LayerConfig> {
  readonly parameter: ParameterSource;
  readonly config: C;
  /** Random numbers for dropout; without them nothing is dropped. */
  readonly random?: RandomState;
  /** Hands out a stream of random numbers for one use. */
  readonly nextStream: () => number;
  /** What {@linkcode projectTime} made, by its weights. */
  readonly projections: Map<Tensor, Tensor>;
}

/** What layers without settings need of a network: its parameters. */
export type WithParameters = Pick<LayerContext, "parameter">;

const activations: Record<ActivationName, (x: Tensor) => Tensor> = {
  ...{ silu, swish: silu, mish, gelu, relu },
};

/** Convolutions' weights `[height, width, in, out]`, or dense layers' `[out, in]`. */
const weights = (
  net: WithParameters,
  name: string,
  shape: readonly number[],
  init: Initializer,
  family?: string,
) =>
  net.parameter({
    ...{ name: `${name}.weight`, shape, order: shape.length === 4 ? "conv" : "linear" },
    ...{ init, isTrained: true, family: family && `${family}.weight` },
  });

const vector = (
  net: WithParameters,
  name: string,
  size: number,
  init: "zeros" | "ones" = "zeros",
  family?: string,
) =>
  net.parameter({
    ...{ name, shape: [size], order: "plain", init, isTrained: true },
    family: family && `${family}.bias`,
  });

/** Convolution with bias from `name.weight` and `name.bias`. */
export function conv(
  net: WithParameters,
  name: string,
  x: Tensor,
  channels: number,
  size: 1 | 3 = 3,
  { window = same(size), init = "xavier" }: { window?: Window; init?: Initializer } = {},
): Tensor {
  return conv2d(x, ...kernelOf(net, name, [size, size, x.shape[3], channels], init), window);
}

/** Weights `[height, width, in, out]` and bias of a convolution. */
const kernelOf = (
  net: WithParameters,
  name: string,
  shape: readonly [height: number, width: number, in_: number, out: number],
  init: Initializer,
): [weight: Tensor, bias: Tensor] => [
  weights(net, name, shape, init),
  vector(net, `${name}.bias`, shape[3]),
];

/** Weights and bias of a dense layer. */
function dense(
  net: WithParameters,
  name: string,
  shape: readonly [out: number, in_: number],
  { init = "xavier", family }: { init?: Initializer; family?: string } = {},
): { weight: Tensor; bias: Tensor } {
  return {
    weight: weights(net, name, shape, init, family),
    bias: vector(net, `${name}.bias`, shape[0], "zeros", family),
  };
}

/** Dense layer over the last axis. */
export function linear(
  net: WithParameters,
  name: string,
  x: Tensor,
  size: number,
  { init = "xavier", bias = true }: { init?: Initializer; bias?: boolean } = {},
): Tensor {
  const weight = weights(net, name, [size, x.shape.at(-1)!], init);
  return linearOp(x, weight, bias ? vector(net, `${name}.bias`, size) : undefined);
}

/** Dense layer whose result falls into parts of equal size along the last axis, each a product. */
export function splitLinear(
  net: WithParameters,
  name: string,
  x: Tensor,
  size: number,
  parts: number,
): Tensor[] {
  const { weight, bias } = dense(net, name, [parts * size, x.shape.at(-1)!]);
  return Array.from(
    { length: parts },
    (_, i) => linearOp(x, slice(weight, 0, i * size, size), slice(bias, 0, i * size, size)),
  );
}

/** Dense layers without bias that see the same, `name.part` for each part, as one product. */
export function jointLinear(
  net: WithParameters,
  name: string,
  parts: readonly string[],
  x: Tensor,
  size: number,
): Tensor[] {
  const axis = x.shape.length - 1, family = `${name}.${parts.join(" ")}`;
  const members = parts.map((part) =>
    weights(net, `${name}.${part}`, [size, x.shape[axis]], "xavier", family)
  );
  const all = linearOp(x, wholeOf(members));
  return parts.map((_, i) => slice(all, axis, i * size, size));
}

/** Layer normalisation over the last axis. */
export function layerNorm(net: WithParameters, name: string, x: Tensor, eps = 1e-5): Tensor {
  const channels = x.shape.at(-1)!, scale = vector(net, `${name}.weight`, channels, "ones");
  return layerNormOp(x, scale, vector(net, `${name}.bias`, channels), eps);
}

/** Group normalisation. */
export function norm(
  net: LayerContext,
  name: string,
  x: Tensor,
  normEps = net.config.normEps,
): Tensor {
  const { normNumGroups } = net.config, channels = x.shape.at(-1)!;
  const scale = vector(net, `${name}.weight`, channels, "ones");
  return groupNorm(
    x,
    scale,
    vector(net, `${name}.bias`, channels),
    normNumGroups,
    normEps,
  );
}

/** Two dense layers with SiLU between them: vectors of timesteps or classes. */
export function embeddingMlp(net: LayerContext, name: string, x: Tensor, size: number): Tensor {
  return linear(net, `${name}.linear_2`, silu(linear(net, `${name}.linear_1`, x, size)), size);
}

/**
 * What a residual block is told of the timestep, `[batch, 1, 1, size]`: its part of one product that
 * serves all blocks, with the sum of some biases.
 */
function projectTime(
  net: LayerContext,
  embedding: Tensor,
  weight: Tensor,
  biases: readonly Tensor[],
): Tensor {
  const { whole, start } = partOf(weight);
  let all = net.projections.get(whole);
  if (!all) {
    const wholes = whole === weight ? biases : biases.map((bias) => partOf(bias).whole);
    const x = activations[net.config.actFn](embedding);
    all = linearOp(x, whole, wholes.reduce((a, b) => add(a, b)));
    all = reshape(all, [all.shape[0], 1, 1, all.shape[1]]);
    net.projections.set(whole, all);
  }
  return slice(all, 3, start, weight.shape[0]);
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
 *
 * @param embedding The vector of the timestep; `undefined` in networks that are told of none.
 */
export function resnet(
  net: LayerContext,
  name: string,
  x: Tensor,
  embedding: Tensor | undefined,
  channels: number,
  { resample, scaleFactor = 1 }: ResnetOptions = {},
): Tensor {
  const { actFn, resnetTimeScaleShift, dropout: rate = 0 } = net.config;
  const activate = activations[actFn];
  const resize = { up: upsampleNearest, down: averagePool, none: (x: Tensor) => x }[
    resample ?? "none"
  ];
  const isScaled = resnetTimeScaleShift === "scale_shift";
  const projection = embedding &&
    dense(net, `${name}.time_emb_proj`, [isScaled ? 2 * channels : channels, embedding.shape[1]], {
      family: "time_emb_proj",
    });
  let h = resize(activate(norm(net, `${name}.norm1`, x)));
  h = embedding && projection
    ? timedConvolution(net, name, h, embedding, projection)
    : norm(net, `${name}.norm2`, conv(net, `${name}.conv1`, h, channels));
  h = activate(h);
  if (net.random) h = dropout(h, rate, net.random, net.nextStream());
  // Parameters lie in the order in which they are asked for.
  const kernel = kernelOf(net, `${name}.conv2`, [3, 3, channels, channels], "zeros");
  const skip = resize(x);
  const shortcut = x.shape[3] === channels
    ? skip
    : conv(net, `${name}.conv_shortcut`, skip, channels, 1);
  // Made last, it can be added to the shortcut in its memory.
  h = conv2d(h, ...kernel, same(3));
  return scaleFactor === 1 ? add(shortcut, h) : mul(add(shortcut, h), 1 / scaleFactor);
}

/** The first convolution of a residual block and the second norm, told the timestep. */
function timedConvolution(
  net: LayerContext,
  name: string,
  x: Tensor,
  embedding: Tensor,
  projection: { weight: Tensor; bias: Tensor },
): Tensor {
  const isScaled = net.config.resnetTimeScaleShift === "scale_shift";
  const channels = projection.weight.shape[0] / (isScaled ? 2 : 1);
  const weight = weights(net, `${name}.conv1`, [3, 3, x.shape[3], channels], "xavier");
  const bias = vector(net, `${name}.conv1.bias`, channels, "zeros", isScaled ? undefined : "conv1");
  // Where the timestep is added, so is the bias, and with it: one sum gives the gradient of both.
  const biases = isScaled ? [projection.bias] : [projection.bias, bias];
  const time = projectTime(net, embedding, projection.weight, biases);
  let h = conv2d(x, weight, isScaled ? bias : undefined, same(3));
  if (!isScaled) h = add(h, time);
  h = norm(net, `${name}.norm2`, h);
  if (!isScaled) return h;
  const scale = slice(time, 3, 0, channels), shift = slice(time, 3, channels, channels);
  return map([h, scale, shift], (h, scale, shift) => e.add(e.mul(h, e.add(scale, 1)), shift));
}

/** Self-attention over all pixels, plus the input. The last layer starts at zero. */
export function attention(
  net: LayerContext<LayerConfig & Pick<UNetConfig, "attentionHeadDim">>,
  name: string,
  x: Tensor,
  { scaleFactor = 1, isNormed = true }: { scaleFactor?: number; isNormed?: boolean } = {},
): Tensor {
  const [n, height, width, channels] = x.shape, { attentionHeadDim } = net.config;
  const size = attentionHeadDim ?? channels, heads = Math.floor(channels / size);
  const normed = isNormed ? norm(net, `${name}.group_norm`, x) : x;
  const inner = heads * size;
  const parts = ["to_q", "to_k", "to_v"].map((part) =>
    dense(net, `${name}.${part}`, [inner, channels], { family: name })
  );
  const products = linearOp(normed, wholeOf(parts.map((part) => part.weight)));
  // The bias of the keys adds the same to all scores of a query, which softmax cancels: leaving it
  // out changes nothing, and keeps the noise of a gradient that is zero away from the optimizer.
  const used = constant(
    Float32Array.from({ length: 3 * inner }, (_, i) => Number(i < inner || i >= 2 * inner)),
  );
  const all = map(
    [products, wholeOf(parts.map((part) => part.bias)), used],
    (product, bias, used) => e.add(product, e.mul(bias, used)),
  );
  const [q, k, v] = [0, 1, 2].map((i) =>
    splitHeads(reshape(slice(all, 3, i * inner, inner), [n, height * width, inner]), heads)
  );
  const mixed = permute(attend(q, k, v), [0, 2, 1, 3]);
  const joined = reshape(mixed, [n, height, width, inner]);
  const out = linear(net, `${name}.to_out.0`, joined, channels, { init: "zeros" });
  return scaleFactor === 1 ? add(x, out) : mul(add(x, out), 1 / scaleFactor);
}

/** Halves the resolution by a convolution with stride 2. */
export function downsample(
  net: LayerContext<LayerConfig & Pick<UNetConfig, "downsamplePadding">>,
  name: string,
  x: Tensor,
): Tensor {
  // Without padding, diffusers (and TensorFlow's SAME) pads right and bottom.
  const before = net.config.downsamplePadding;
  const window: Window = { stride: 2, padding: [before, 1, before, 1] };
  return conv(net, `${name}.conv`, x, x.shape[3], 3, { window });
}

/**
 * Doubles the resolution by repeating pixels, then convolves.
 *
 * @param size Height and width to come to, where they are odd: the last pixels are not repeated.
 */
export function upsample(
  net: LayerContext,
  name: string,
  x: Tensor,
  [height, width]: readonly number[] = [2 * x.shape[1], 2 * x.shape[2]],
): Tensor {
  const repeated = slice(slice(upsampleNearest(x), 1, 0, height), 2, 0, width);
  return conv(net, `${name}.conv`, repeated, x.shape[3]);
}
