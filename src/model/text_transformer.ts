/**
 * A small transformer that reads a text: pre-norm layers whose tokens all attend to each other, with
 * learned positions. What stands for padding is a token like others, with states of its own, so that
 * attention needs no mask and an empty text is one, too.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { gelu } from "../gpu/ops/map.ts";
import { mean } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { layerNorm } from "./layers.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";
import type { ParameterSource } from "./parameters.ts";
import type { EncodedTokens } from "./text_encoder.ts";
import { embedTokens, transformerLayer } from "./text_layers.ts";

/** The class of it in configurations, where it is a network by itself. */
const TEXT_TRANSFORMER = "TextTransformer";
/** Added to variances. */
const EPSILON = 1e-5;

const count = z.int().positive();

/** Of the fields as they are in files. */
export const textTransformerSchema = z.strictObject({
  vocab_size: count.max(65536).default(257),
  max_length: count.max(4096).default(48),
  width: count.max(65536).default(128),
  layers: count.max(100).default(3),
  heads: count.default(4),
}).refine(({ width, heads }) => width % heads === 0, {
  ...{ path: ["heads"], message: "does not divide width" },
});

/** The architecture of a text transformer. */
export type TextTransformerConfig = z.infer<typeof textTransformerSchema>;

/** The states of tokens `i32` `[batch, n]`, and their mean. */
export function textTransformer(
  parameter: ParameterSource,
  { vocab_size, max_length, width, layers, heads }: TextTransformerConfig,
  tokens: Tensor,
): EncodedTokens & { readonly pooled: Tensor } {
  const net = { parameter };
  const hidden = [embedTokens(net, tokens, width, {
    tokens: { name: "token_embedding", rows: vocab_size },
    places: { name: "position_embedding", rows: max_length },
  })];
  for (let i = 0; i < layers; i++) {
    const own = (part: string) => `layers.${i}.${part}`;
    hidden.push(transformerLayer(net, hidden[i], {
      names: [own("norm1"), own("norm2"), own("ff.0"), own("ff.2")],
      attention: {
        name: own("attn"),
        parts: ["to_q", "to_k", "to_v", "to_out.0"],
        ...{ heads, size: width / heads, hasBias: false, isCausal: false },
      },
      ...{ inner: 4 * width, activation: gelu, eps: EPSILON },
    }));
  }
  const states = layerNorm(net, "final_norm", hidden.at(-1)!, EPSILON);
  return { states, pooled: reshape(mean(states, [1]), [tokens.shape[0], width]), hidden };
}

/** The class of networks that are nothing else. */
export const textTransformerNetwork: NetworkMaker<TextTransformerConfig> = defineNetwork({
  className: TEXT_TRANSFORMER,
  parse: (fields) =>
    parseWith(
      textTransformerSchema,
      givenFields(fields),
      `configuration of a ${TEXT_TRANSFORMER}`,
    ),
  format: (config) => config,
  resize: () => ({}),
  build: (config) => ({
    kind: "text encoder",
    tokens: config.max_length,
    vocabulary: config.vocab_size,
    width: config.width,
    forward: ({ parameter }, ids) => textTransformer(parameter, config, ids),
  }),
});
registerNetwork(textTransformerNetwork);
