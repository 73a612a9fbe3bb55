/**
 * Networks that tell how well pictures and texts go together: an encoder of pictures and one of texts,
 * whose embeddings are in one space (CLIP, Radford et al. 2021). This package's own, `DualEncoder`, is
 * small: a few convolutions, and a transformer over the bytes of a text.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import type { Condition } from "../diffusion/denoiser.ts";
import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { div, map, mul, square, toFloat } from "../gpu/ops/map.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { ByteTokenizer } from "../text/byte_tokenizer.ts";
import { oneHot } from "./classifier.ts";
import { convolutionFields, convolutions, pictureShape, widthSchema } from "./convolutions.ts";
import { linear } from "./layers.ts";
import {
  defineNetwork,
  type Forward,
  type ItemParts,
  type Network,
  type NetworkBase,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { below, type ParameterSource } from "./parameters.ts";
import { textTransformer, textTransformerSchema } from "./text_transformer.ts";

/** A network that tells how well items and texts go together. */
export interface DualEncoderParts extends ItemParts {
  /** What it does. */
  readonly kind: "dual encoder";
  /** Numbers of an embedding. */
  readonly width: number;
  /** What it is shown of a text. */
  readonly tokens: Condition;
  /** The tokens of a text. */
  readonly tokenize: (text: string) => Int32Array<ArrayBuffer>;
  /** Embeddings `[batch, width]`, of length 1, of clean items `[batch, ...shape]`. */
  readonly encodeItems: (forward: Forward, items: Tensor) => Tensor;
  /** Embeddings `[batch, width]`, of length 1, of tokens `i32` `[batch, n]`. */
  readonly encodeTexts: (forward: Forward, tokens: Tensor) => Tensor;
  /** What training multiplies cosines of embeddings by, `[1]`: one over the temperature. */
  readonly scale: (forward: Forward) => Tensor;
}

/** A dual encoder's network. */
export type DualEncoderNetwork = NetworkBase & DualEncoderParts;

/** What the class of networks is called in files. */
export const DUAL_ENCODER = "DualEncoder";

/** One over the temperature that training starts with, and the most that it becomes, as in CLIP. */
const FIRST_SCALE = 1 / 0.07, LARGEST_SCALE = 100;
/** Added to the squares of lengths. */
const EPSILON = 1e-12;

/** Of the fields as they are in files. */
export const dualEncoderSchema = z.strictObject({
  ...convolutionFields,
  projection_dim: widthSchema.default(64),
  text_encoder: textTransformerSchema.prefault({}),
});

/** The architecture, its fields as they are in files. */
export type DualEncoderConfig = z.infer<typeof dualEncoderSchema>;

/** A projection of vectors `[batch, n]`, brought to the length 1. */
function project(parameter: ParameterSource, name: string, x: Tensor, width: number): Tensor {
  const projected = linear({ parameter }, name, x, width, { bias: false });
  const length = sum(square(projected), [1]);
  return map([projected, length], (x, squares) => e.div(x, e.sqrt(e.add(squares, EPSILON))));
}

/** The mean of the states `[batch, n, width]` of a text's bytes; of an empty text the first state. */
function meanOfBytes(states: Tensor, tokens: Tensor): Tensor {
  const [batch, n, width] = states.shape, first = oneHot(constant(Int32Array.of(0)), n);
  const isRead = map(
    [toFloat(tokens), first],
    (token, first) => e.max(e.less(token, ByteTokenizer.none), first),
  );
  const total = sum(mul(states, reshape(isRead, [batch, n, 1])), [1]);
  return reshape(div(total, reshape(sum(isRead, [1]), [batch, 1, 1])), [batch, width]);
}

/** The class of networks. */
export const dualEncoder: NetworkMaker<DualEncoderConfig> = defineNetwork({
  className: DUAL_ENCODER,
  parse: (fields) => parseWith(dualEncoderSchema, givenFields(fields), "network configuration"),
  format: (config) => config,
  resize: ([height, width]) => ({ sample_size: [height, width] }),
  build({ projection_dim: width, text_encoder: text, ...config }) {
    const tokenizer = new ByteTokenizer({ length: text.max_length });
    return {
      kind: "dual encoder",
      itemShape: pictureShape(config),
      width,
      tokens: {
        ...{ shape: [text.max_length], dtype: "i32" },
        ...{ below: text.vocab_size, none: ByteTokenizer.none },
      },
      tokenize: (caption) => tokenizer.encode(caption).ids,
      encodeItems({ parameter }, items) {
        const seen = convolutions({ parameter: below(parameter, "image_encoder") }, config, items);
        return project(parameter, "image_projection", seen, width);
      },
      encodeTexts({ parameter }, tokens) {
        const { states } = textTransformer(below(parameter, "text_encoder"), text, tokens);
        return project(parameter, "text_projection", meanOfBytes(states, tokens), width);
      },
      scale({ parameter }) {
        const growth = parameter({
          ...{ name: "logit_scale", shape: [1], order: "plain", init: "zeros", isTrained: true },
        });
        return map([growth], (x) => e.min(e.mul(e.exp(x), FIRST_SCALE), LARGEST_SCALE));
      },
    };
  },
});
registerNetwork(dualEncoder);

/**
 * The network as one that tells how well pictures and texts go together.
 *
 * @throws {InputError} If it is of another kind.
 *
 * @example
 * ```ts
 * import { dualEncoderNetwork, parseNetwork } from "@x/ddpm";
 *
 * const { width, tokens } = dualEncoderNetwork(parseNetwork({ _class_name: "DualEncoder",
 *   sample_size: 32, in_channels: 3, projection_dim: 48 }));
 * console.log(width, tokens.shape); // 48, [48]
 * ```
 */
export function dualEncoderNetwork(network: Network): DualEncoderNetwork {
  if (network.kind === "dual encoder") return network;
  throw new InputError(
    `Cannot compare pictures with texts by a network of class ${network.className}: it is a ` +
      `${network.kind}; train --objective contrastive makes a ${DUAL_ENCODER}`,
  );
}
