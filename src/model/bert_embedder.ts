/**
 * The text encoder that latent diffusion (Rombach et al. 2022) was first trained with: its
 * `BERTEmbedder`, a transformer of x-transformers that sees all tokens, padding among them. Parameters
 * have the names that they have in its files below `cond_stage_model.transformer.`.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { gelu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { layerNorm } from "./layers.ts";
import { defineNetwork, type Forward, type NetworkMaker, registerNetwork } from "./network.ts";
import type { EncodedTokens } from "./text_encoder.ts";
import { embedTokens, transformerLayer } from "./text_layers.ts";

/** The class of it in configurations. */
const BERT_EMBEDDER = "BERTEmbedder";
/** Added to variances. */
const EPSILON = 1e-5;

const count = z.int().positive();
const schema = z.strictObject({
  n_embed: count.max(65536),
  n_layer: count.max(200),
  vocab_size: count.max(2 ** 20).default(30522),
  max_seq_len: count.max(65536).default(77),
  // What x-transformers does without being told.
  heads: count.max(1024).default(8),
  dim_head: count.max(65536).default(64),
});

/** The configuration: the arguments of the original, and those of its attention. */
export type BertEmbedderConfig = Readonly<z.infer<typeof schema>>;

function encode(config: BertEmbedderConfig, { parameter }: Forward, ids: Tensor): EncodedTokens {
  const { n_embed: width, heads, dim_head: size } = config, net = { parameter };
  const hidden = [embedTokens(net, ids, width, {
    tokens: { name: "token_emb", rows: config.vocab_size },
    places: { name: "pos_emb.emb", rows: config.max_seq_len },
  })];
  for (let i = 0; i < config.n_layer; i++) {
    // Attention and dense layers take turns in one list there, each a pair of a norm and a layer.
    const [first, second] = [2 * i, 2 * i + 1].map((k) => `attn_layers.layers.${k}`);
    hidden.push(transformerLayer(net, hidden[i], {
      names: [`${first}.0`, `${second}.0`, `${second}.1.net.0.0`, `${second}.1.net.2`],
      attention: {
        name: `${first}.1`,
        parts: ["to_q", "to_k", "to_v", "to_out"],
        ...{ heads, size, hasBias: false, isCausal: false },
      },
      ...{ inner: 4 * width, activation: gelu, eps: EPSILON },
    }));
  }
  return { states: layerNorm(net, "norm", hidden.at(-1)!, EPSILON), hidden };
}

/** The class of networks. Its logits, which nothing asks for, are left out. */
export const bertEmbedder: NetworkMaker<BertEmbedderConfig> = defineNetwork({
  className: BERT_EMBEDDER,
  // Arguments of the original that do not change what it computes are passed over.
  parse: ({ device: _, use_tokenizer: _tokenizer, embedding_dropout: _dropout, ...fields }) =>
    parseWith(schema, givenFields(fields), `configuration of a ${BERT_EMBEDDER}`),
  format: (config) => config,
  resize: () => ({}),
  build: (config) => ({
    kind: "text encoder",
    tokens: config.max_seq_len,
    vocabulary: config.vocab_size,
    width: config.n_embed,
    forward: (forward, ids) => encode(config, forward, ids),
  }),
});
registerNetwork(bertEmbedder);
