/**
 * What a network is to the rest of the package. A network is one file: a configuration with the field
 * names of diffusers, the shape of an item, what it is asked beside noisy items and timesteps, and its
 * forward function over tensors. It is found by the `_class_name` of its configuration.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Segment } from "../gpu/grad.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import { input, type Tensor } from "../gpu/tensor.ts";
import type { Conditions } from "../diffusion/denoiser.ts";
import type { Shape } from "../shape.ts";
import type { DualEncoderNetwork, DualEncoderParts } from "./dual_encoder.ts";
import type { TextEncoderNetwork, TextEncoderParts } from "./text_encoder.ts";
import { collectParameters, type ParameterLayout, type ParameterSource } from "./parameters.ts";

/** Fields of a configuration as they are in files. */
export type Fields = Readonly<Record<string, unknown>>;

/** The shape of an item; `null` where any size will do. */
export type ItemShape = readonly (number | null)[];

/** A block of layers, or the attention in it, which is little work for much memory. */
export type SegmentKind = "block" | "attention";

/** What a forward pass is given beside its inputs. */
export interface Forward {
  /** Hands out parameters by name. */
  readonly parameter: ParameterSource;
  /** Random numbers for dropout, in training. */
  readonly random?: RandomState;
  /** The first stream of random numbers that dropout may use. @default {0} */
  readonly firstStream?: number;
  /** Called for each segment that is eligible for gradient checkpointing. */
  readonly onSegment?: (kind: SegmentKind, segment: Segment) => void;
}

/** What a network of noisy items is asked. */
export interface NetworkInputs {
  /** Noisy items `[batch, ...shape]`. */
  readonly sample: Tensor;
  /** `f32` `[batch]`, in [0, 1000) for a schedule of 1000 steps; need not be whole. */
  readonly timestep: Tensor;
  /** The value of every condition, `[batch, ...shape]`. */
  readonly conditions: Readonly<Record<string, Tensor>>;
}

/** What the classes of all networks say of items. */
export interface ItemParts {
  /** The shape of the items that it was made for. */
  readonly itemShape: ItemShape;
  /** Sizes that `itemShape` leaves open are multiples of this. @default {1} */
  readonly multiple?: number;
}

/** What all networks of noisy items have. */
export interface NoisyItemsParts extends ItemParts {
  /** What it is told of items of a shape, beside noise and timestep. */
  readonly conditions: (item: Shape) => Conditions;
  /**
   * Conditions that training makes of clean items `[batch, ...shape]`, by name, within its step: what
   * a network that restores something is shown in its stead. Without random numbers they are not
   * varied.
   */
  readonly derived?: Readonly<Record<string, (items: Tensor, random?: RandomState) => Tensor>>;
}

/** A network that predicts noise, images or velocities. */
export interface DenoisingParts extends NoisyItemsParts {
  /** What it does. */
  readonly kind: "denoiser";
  /** Channels of the prediction, the last axis. */
  readonly outChannels: number;
  /**
   * For a network that enlarges pictures: how many times as wide and high they become. It has the
   * condition `low_resolution`, and may have `noise_level`.
   */
  readonly factor?: number;
  /** For a network that is told captions: how one becomes the condition `tokens`. */
  readonly tokenize?: (caption: string) => Int32Array<ArrayBuffer>;
  /** Whether training drops values, so that a forward pass in training needs random numbers. */
  readonly hasDropout?: boolean;
  /** The prediction `[batch, ..., outChannels]`. */
  readonly forward: (forward: Forward, inputs: NetworkInputs) => Tensor;
}

/** A network that tells classes of noisy items apart. */
export interface ClassifierParts extends NoisyItemsParts {
  /** What it does. */
  readonly kind: "classifier";
  /** How many classes. */
  readonly classes: number;
  /** Whether training drops values. */
  readonly hasDropout?: boolean;
  /** Logits `[batch, classes]`. */
  readonly forward: (forward: Forward, inputs: NetworkInputs) => Tensor;
  /** Of one that is shown items without noise: how it sees features, of which it makes the logits. */
  readonly features?: Features;
}

/** What a network sees in clean items. */
export interface ItemFeatures {
  /** What it tells items apart by, `[batch, width]`. */
  readonly features: Tensor;
  /** Logits of the classes that it was trained on, `[batch, classes]`. */
  readonly logits: Tensor;
}

/** What sees features in clean items. */
export interface Features {
  /** How many features an item has. */
  readonly width: number;
  /** Features and logits of items `[batch, ...shape]` in [-1, 1]. */
  readonly forward: (forward: Forward, items: Tensor) => ItemFeatures;
}

/** A network that is shown clean items, without noise and timestep. */
export interface FeatureParts extends ItemParts, Features {
  /** What it does. */
  readonly kind: "feature extractor";
  /** How many classes. */
  readonly classes: number;
}

/** How near pictures are to concepts. */
export interface ConceptScores {
  /** What is seen in each picture, `[batch, width]`. */
  readonly embeddings: Tensor;
  /** Cosines to concepts that are not to be shown, minus their thresholds, `[batch, concepts]`. */
  readonly concepts: Tensor;
  /** The same for those that make it stricter about the others. */
  readonly special: Tensor;
}

/** A network that tells whether pictures may be shown. */
export interface SafetyCheckerParts extends ItemParts {
  /** What it does. */
  readonly kind: "safety checker";
  /** Of pictures `[batch, ...shape]`, normalised as CLIP's are. */
  readonly forward: (forward: Forward, pictures: Tensor) => ConceptScores;
}

/** What an encoder makes of pictures. */
export interface Encoded {
  /** Latents `[batch, height, width, latentChannels]`, before any scaling and quantisation. */
  readonly mean: Tensor;
  /** Of autoencoders that make a normal distribution of each: the logarithm of its variance. */
  readonly logVariance?: Tensor;
}

/** Latents by the entries of a codebook. */
export interface Quantized {
  /** The nearest entries `[batch, height, width, channels]`; gradients pass straight to the latents. */
  readonly quantized: Tensor;
  /** Their numbers, `i32` `[batch, height, width]`. */
  readonly indices: Tensor;
  /** What pulls latents and entries together, a scalar for training. */
  readonly loss: Tensor;
}

/** A network that makes latents of pictures, and pictures of those. */
export interface AutoencoderParts extends ItemParts {
  /** What it does. */
  readonly kind: "autoencoder";
  /** How many times smaller latents are, along each side. */
  readonly factor: number;
  /** Channels of latents. */
  readonly latentChannels: number;
  /** Denoisers see latents z as (z - shiftFactor) · scalingFactor. */
  readonly scalingFactor: number;
  /** See `scalingFactor`. */
  readonly shiftFactor: number;
  /** The latents of pictures `[batch, height, width, channels]` in [-1, 1]. */
  readonly encode: (forward: Forward, pictures: Tensor) => Encoded;
  /**
   * The pictures of latents `[batch, height, width, latentChannels]`. With a codebook, they are
   * quantised first, unless they are said to be.
   */
  readonly decode: (forward: Forward, latents: Tensor, isQuantized?: boolean) => Tensor;
  /** Of autoencoders with a codebook: the entries of latents. */
  readonly quantize?: (forward: Forward, latents: Tensor) => Quantized;
}

/** What there is of a kind of network of items. */
export type ItemNetworkParts =
  | DenoisingParts
  | ClassifierParts
  | FeatureParts
  | SafetyCheckerParts
  | AutoencoderParts
  | DualEncoderParts;
/** What there is of a kind of network. */
export type NetworkParts = ItemNetworkParts | TextEncoderParts;

/** What all networks have. */
export interface NetworkBase {
  /** The name of its class, as in files. */
  readonly className: string;
  /** Its configuration as in files, without the name of its class. */
  readonly config: Fields;
  /** Names, shapes and places of its parameters. */
  readonly layout: ParameterLayout;
}

/** A denoiser's network. */
export type DenoisingNetwork = NetworkBase & DenoisingParts;
/** A classifier's. */
export type ClassifierNetwork = NetworkBase & ClassifierParts;
/** One that sees features in clean items. */
export type FeatureNetwork = NetworkBase & FeatureParts;
/** One that tells whether pictures may be shown. */
export type SafetyCheckerNetwork = NetworkBase & SafetyCheckerParts;
/** One between pictures and latents. */
export type AutoencoderNetwork = NetworkBase & AutoencoderParts;
/** A network of noisy items. */
export type NoisyItemsNetwork = DenoisingNetwork | ClassifierNetwork;
/** A network that a {@linkcode Trainer} can teach. */
export type TrainableNetwork = NoisyItemsNetwork | AutoencoderNetwork | DualEncoderNetwork;
/** A network of items of any kind. */
export type ItemNetwork = TrainableNetwork | FeatureNetwork | SafetyCheckerNetwork;
/** A network of any kind. */
export type Network = ItemNetwork | TextEncoderNetwork;

/** A class of networks. */
export interface NetworkClass<C = unknown> {
  /** As in files. */
  readonly className: string;
  /**
   * Reads a configuration.
   *
   * @throws {InputError} If a field is unknown, out of range, or contradicts another one.
   */
  readonly parse: (fields: Fields) => C;
  /** The configuration as it is written. */
  readonly format: (config: C) => Fields;
  /** The network of a configuration. */
  readonly build: (config: C) => NetworkParts;
  /** The fields that make the network one for items of this shape; for texts there are none. */
  readonly resize: (item: Shape) => Fields;
}

/** A class of networks that can make some. */
export interface NetworkMaker<C> extends NetworkClass<C> {
  /** The network of a configuration. */
  readonly create: (config: C) => Network;
}

/**
 * Defines a class of networks. Its parameters are those that `forward` asks for.
 *
 * @example A network of one convolution
 * ```ts
 * import { defineNetwork, initializeModel, parseNetwork, registerNetwork } from "@x/ddpm";
 * import { conv2d, same } from "@x/ddpm/tensor";
 *
 * registerNetwork(defineNetwork({
 *   className: "OneConvolution",
 *   parse: ({ channels = 1 }) => ({ channels: Number(channels) }),
 *   format: (config) => config,
 *   resize: ([, , channels]) => ({ channels }),
 *   build: ({ channels }) => ({
 *     kind: "denoiser",
 *     itemShape: [null, null, channels],
 *     outChannels: channels,
 *     conditions: () => ({}),
 *     forward: ({ parameter }, { sample }) =>
 *       conv2d(
 *         sample,
 *         parameter({ name: "weight", shape: [3, 3, channels, channels], order: "conv",
 *           init: "xavier", isTrained: true }),
 *         parameter({ name: "bias", shape: [channels], order: "plain", init: "zeros",
 *           isTrained: true }),
 *         same(3),
 *       ),
 *   }),
 * }));
 * const network = parseNetwork({ _class_name: "OneConvolution", channels: 3 });
 * console.log(initializeModel(network, {}, 0).network.layout.count); // 84
 * ```
 */
export function defineNetwork<C>(definition: NetworkClass<C>): NetworkMaker<C> {
  const { className, format, build } = definition;
  return {
    ...definition,
    create(config) {
      const parts = build(config);
      const layout = collectParameters((parameter) => askOnce(parts, parameter), input);
      const { _class_name: _, ...fields } = format(config);
      return { ...parts, className, config: fields, layout };
    },
  };
}

/** A forward pass over one item or text, for the parameters that it asks for. */
function askOnce(parts: NetworkParts, parameter: ParameterSource): void {
  if (parts.kind === "text encoder") {
    parts.forward({ parameter }, input("ids", [1, parts.tokens], "i32"));
    return;
  }
  const { itemShape, multiple = 1 } = parts;
  // A size that does not fit is for a forward pass to refuse.
  const item = itemShape.map((size, i) =>
    i === itemShape.length - 1 ? size! : size && size % multiple === 0 ? size : multiple
  );
  const sample = input("sample", [1, ...item]);
  if (parts.kind === "feature extractor" || parts.kind === "safety checker") {
    parts.forward({ parameter }, sample);
    return;
  }
  if (parts.kind === "autoencoder") {
    parts.decode({ parameter }, parts.encode({ parameter }, sample).mean);
    return;
  }
  if (parts.kind === "dual encoder") {
    parts.encodeItems({ parameter }, sample);
    parts.encodeTexts({ parameter }, input("tokens", [1, ...parts.tokens.shape], "i32"));
    parts.scale({ parameter });
    return;
  }
  const conditions = Object.entries(parts.conditions(item)).map(([name, { shape, dtype }]) =>
    [name, input(name, [1, ...shape], dtype)] as const
  );
  const timestep = input("timestep", [1]);
  parts.forward({ parameter }, { sample, timestep, conditions: Object.fromEntries(conditions) });
}

/** Those that are known, by their class. */
const known = new Map<string, NetworkMaker<unknown>>();

/** Makes a class of networks known to {@linkcode parseNetwork}, and so to files that name it. */
export function registerNetwork<C>(network: NetworkMaker<C>): void {
  known.set(network.className, network as NetworkMaker<unknown>);
}

/** The names of all that are known. */
export const networkClasses = (): readonly string[] => [...known.keys()];

/** What configurations that do not name their class are of. */
const DEFAULT_CLASS = "UNet2DModel";

/** @throws {InputError} If it is not known. */
function makerOf(className: unknown): NetworkMaker<unknown> {
  const maker = known.get(String(className));
  if (maker) return maker;
  throw new InputError(
    `Cannot use a network of class ${className}: known are ${networkClasses().join(", ")}`,
  );
}

/**
 * The network of a configuration, of any kind.
 *
 * @param defaultClass Where it names none: neither a `_class_name`, nor `architectures` as those of
 * transformers do.
 * @throws {InputError} As {@linkcode parseNetwork}.
 */
export function networkOf(fields: unknown, defaultClass?: string): Network {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new InputError("Bad network configuration: it is no object");
  }
  const { _class_name: own, ...rest } = fields as Fields, { architectures } = rest;
  const named = Array.isArray(architectures) ? architectures[0] : undefined;
  const maker = makerOf(own ?? named ?? defaultClass);
  return maker.create(maker.parse(rest));
}

/**
 * The network of a configuration.
 *
 * @param fields As in a `config.json` of diffusers; those that start with an underscore are ignored
 * but `_class_name`, a `UNet2DModel` where it is missing.
 * @throws {InputError} If the class is not known, or is one of text encoders, or a field is unknown,
 * out of range, or contradicts another one.
 *
 * @example
 * ```ts
 * import { parseNetwork } from "@x/ddpm";
 *
 * const network = parseNetwork({
 *   sample_size: 28,
 *   in_channels: 1,
 *   out_channels: 1,
 *   down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
 *   up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
 *   block_out_channels: [32, 64],
 * });
 * console.log(network.itemShape, network.layout.count);
 * ```
 */
export function parseNetwork(fields: unknown): ItemNetwork {
  const network = networkOf(fields, DEFAULT_CLASS);
  if (network.kind !== "text encoder") return network;
  throw new InputError(
    `Cannot use a network of class ${network.className} here: it is a text encoder, which knows nothing of ` +
      "items",
  );
}

/** Whether a network is one of noisy items, which goes with a noise schedule. */
export const isOfNoisyItems = (network: Network): network is NoisyItemsNetwork =>
  network.kind === "denoiser" || network.kind === "classifier";

/**
 * The network as one of noisy items, which models are made of.
 *
 * @throws {InputError} If it is of another kind.
 */
export function noisyItemsNetwork(network: Network): NoisyItemsNetwork {
  if (isOfNoisyItems(network)) return network;
  const article = /^[aeiou]/.test(network.kind) ? "an" : "a";
  throw new InputError(
    `Cannot make a model of a network of class ${network.className}: it is ${article} ` +
      `${network.kind}, which knows nothing of noise`,
  );
}

/**
 * The network as one that can be trained.
 *
 * @throws {InputError} If it is of another kind.
 */
export const trainableNetwork = (network: Network): TrainableNetwork =>
  network.kind === "autoencoder" || network.kind === "dual encoder"
    ? network
    : noisyItemsNetwork(network);

/**
 * What a network is told of items of a shape: an autoencoder, which sees them, nothing, and a dual
 * encoder a text.
 */
export const toldOf = (network: TrainableNetwork, item: Shape): Conditions =>
  network.kind === "autoencoder"
    ? {}
    : network.kind === "dual encoder"
    ? { tokens: network.tokens }
    : network.conditions(item);

/**
 * The network as one between pictures and latents.
 *
 * @throws {InputError} If it is of another kind.
 *
 * @example
 * ```ts
 * import { autoencoderNetwork, parseNetwork } from "@x/ddpm";
 *
 * const network = autoencoderNetwork(parseNetwork({
 *   _class_name: "AutoencoderKL",
 *   down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
 *   up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
 *   block_out_channels: [32, 64],
 * }));
 * console.log(network.factor, network.latentChannels); // 2 4
 * ```
 */
export function autoencoderNetwork(network: Network): AutoencoderNetwork {
  if (network.kind === "autoencoder") return network;
  throw new InputError(
    `Cannot use a network of class ${network.className} as an autoencoder: it is a ` +
      `${network.kind}; AutoencoderKL and VQModel are autoencoders`,
  );
}

/** The configuration of a network as it is written. */
export const formatNetwork = ({ className, config }: Network): Record<string, unknown> => ({
  _class_name: className,
  ...config,
});

/**
 * The same network for items of another shape; its parameters are the same.
 *
 * @throws {InputError} If it cannot be one for them.
 */
export function resizeNetwork<N extends ItemNetwork>(network: N, item: Shape): N {
  const fields = { ...network.config, ...makerOf(network.className).resize(item) };
  // Networks of a class are of one kind.
  return parseNetwork({ _class_name: network.className, ...fields }) as N;
}

/**
 * The item shape of a network with sizes for what it leaves open, or instead of what it was made for.
 *
 * @param size All of its axes but the last.
 * @throws {InputError} If there are sizes missing, or they are none.
 */
export function itemOf(network: ItemNetwork, size?: readonly number[]): Shape {
  const { itemShape } = network, own = itemShape.slice(0, -1);
  const sizes = size ?? own, channels = itemShape[itemShape.length - 1]!;
  if (sizes.some((n) => n === null)) {
    throw new InputError("The model is for images of any size: give one");
  }
  if (sizes.length !== own.length) {
    throw new InputError(
      `The model is for items of ${own.length} sizes and channels, not ${sizes.join("x")}`,
    );
  }
  for (const side of sizes) {
    if (Number.isSafeInteger(side) && side! >= 1) continue;
    throw new InputError(`Bad size ${sizes.join("x")}: give integers from 1 on`);
  }
  return [...sizes as number[], channels];
}
