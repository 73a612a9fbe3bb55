/**
 * What a text encoder is to the rest of the package: a network of tokens in place of items.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type Forward, type NetworkBase, networkOf } from "./network.ts";

/** What a text encoder makes of tokens. */
export interface EncodedTokens {
  /** What it says of each token, after the last normalisation, `[batch, n, width]`. */
  readonly states: Tensor;
  /** What it says of the whole text, `[batch, width]`, where it does. */
  readonly pooled?: Tensor;
  /** What goes into each layer, and what comes out of the last one, before that normalisation. */
  readonly hidden: readonly Tensor[];
}

/** A network that reads texts. It knows nothing of items. */
export interface TextEncoderParts {
  /** What it does. */
  readonly kind: "text encoder";
  /** As many tokens as it takes at the most. */
  readonly tokens: number;
  /** Ids are below this; those that are not count as the nearest that is. */
  readonly vocabulary: number;
  /** Numbers that it says of a token. */
  readonly width: number;
  /** Of ids `i32` `[batch, n]`; a RangeError where they are more than `tokens`. */
  readonly forward: (forward: Forward, ids: Tensor) => EncodedTokens;
}

/** A text encoder's network. */
export type TextEncoderNetwork = NetworkBase & TextEncoderParts;

/**
 * The text encoder of a configuration.
 *
 * @param fields As in a `config.json` of transformers, whose `architectures` tell the class, or with
 * a `_class_name`.
 * @throws {InputError} If the class is not known, or is none of text encoders, or a field is out of
 * range or contradicts another one.
 *
 * @example The text encoder of Stable Diffusion 1
 * ```ts
 * import { parseTextEncoder } from "@x/ddpm";
 *
 * const { tokens, width, layout } = parseTextEncoder({
 *   architectures: ["CLIPTextModel"],
 *   hidden_size: 768,
 *   intermediate_size: 3072,
 *   num_attention_heads: 12,
 * });
 * console.log(tokens, width, layout.count); // 77, 768, 123060480
 * ```
 */
export function parseTextEncoder(fields: unknown): TextEncoderNetwork {
  const network = networkOf(fields);
  if (network.kind === "text encoder") return network;
  throw new InputError(
    `Cannot read texts with a network of class ${network.className}: it is a ${network.kind}`,
  );
}
