/**
 * The text encoder that latent diffusion (Rombach et al. 2022) was first trained with, a transformer
 * that sees all tokens, padding among them: its own `BERTEmbedder`, whose parameters have the names of
 * its files below `cond_stage_model.transformer.`, and the `LDMBertModel` of diffusers.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { gelu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { layerNorm } from "./layers.ts";
import { defineNetwork, type Forward, type NetworkMaker, registerNetwork } from "./network.ts";
import type { EncodedTokens, TextEncoderParts } from "./text_encoder.ts";
import {
  embedTokens,
  type SelfAttention,
  type TransformerLayer,
  transformerLayer,
} from "./text_layers.ts";

/** The classes of it in configurations. */
const BERT_EMBEDDER = "BERTEmbedder", LDM_BERT_MODEL = "LDMBertModel";
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

/** The fields of diffusers that say what is computed, with the values that it takes without them. */
const diffusersSchema = z.object({
  vocab_size: count.max(2 ** 20).default(30522),
  max_position_embeddings: count.max(65536).default(77),
  encoder_layers: count.max(200).default(32),
  encoder_ffn_dim: count.max(2 ** 20).default(5120),
  encoder_attention_heads: count.max(1024).default(8),
  head_dim: count.max(65536).default(64),
  d_model: count.max(65536).default(1280),
  activation_function: z.enum(["gelu"]).default("gelu"),
});

/** The configuration, as in files of diffusers. */
export type LdmBertConfig = Readonly<z.infer<typeof diffusersSchema>>;

/** What a project calls the parameters. */
interface Names {
  readonly tokens: string;
  readonly places: string;
  readonly norm: string;
  /** The norms and the dense layers of layer i, and its attention. */
  readonly layer: (i: number) => Pick<TransformerLayer, "names"> & {
    readonly attention: Pick<SelfAttention, "name" | "parts">;
  };
}

const ownNames: Names = {
  ...{ tokens: "token_emb", places: "pos_emb.emb", norm: "norm" },
  layer(i) {
    // Attention and dense layers take turns in one list there, each a pair of a norm and a layer.
    const [first, second] = [2 * i, 2 * i + 1].map((k) => `attn_layers.layers.${k}`);
    return {
      names: [`${first}.0`, `${second}.0`, `${second}.1.net.0.0`, `${second}.1.net.2`],
      attention: { name: `${first}.1`, parts: ["to_q", "to_k", "to_v", "to_out"] },
    };
  },
};

const diffusersNames: Names = {
  ...{ tokens: "model.embed_tokens", places: "model.embed_positions", norm: "model.layer_norm" },
  layer(i) {
    const own = (part: string) => `model.layers.${i}.${part}`;
    return {
      names: [own("self_attn_layer_norm"), own("final_layer_norm"), own("fc1"), own("fc2")],
      attention: { name: own("self_attn"), parts: ["q_proj", "k_proj", "v_proj", "out_proj"] },
    };
  },
};

/** A network, by the fields of diffusers. */
const partsOf = (config: LdmBertConfig, names: Names): TextEncoderParts => ({
  kind: "text encoder",
  tokens: config.max_position_embeddings,
  vocabulary: config.vocab_size,
  width: config.d_model,
  forward: (forward, ids) => encode(config, names, forward, ids),
});

function encode(
  config: LdmBertConfig,
  names: Names,
  { parameter }: Forward,
  ids: Tensor,
): EncodedTokens {
  const { d_model: width, encoder_attention_heads: heads, head_dim: size } = config;
  const net = { parameter }, inner = config.encoder_ffn_dim;
  const hidden = [embedTokens(net, ids, width, {
    tokens: { name: names.tokens, rows: config.vocab_size },
    places: { name: names.places, rows: config.max_position_embeddings },
  })];
  for (let i = 0; i < config.encoder_layers; i++) {
    const layer = names.layer(i);
    hidden.push(transformerLayer(net, hidden[i], {
      ...layer,
      attention: { ...layer.attention, heads, size, hasBias: false, isCausal: false },
      ...{ inner, activation: gelu, eps: EPSILON },
    }));
  }
  return { states: layerNorm(net, names.norm, hidden.at(-1)!, EPSILON), hidden };
}

/** The class of networks. Its logits, which nothing asks for, are left out. */
export const bertEmbedder: NetworkMaker<BertEmbedderConfig> = defineNetwork({
  className: BERT_EMBEDDER,
  // Arguments of the original that do not change what it computes are passed over.
  parse: ({ device: _, use_tokenizer: _tokenizer, embedding_dropout: _dropout, ...fields }) =>
    parseWith(schema, givenFields(fields), `configuration of a ${BERT_EMBEDDER}`),
  format: (config) => config,
  resize: () => ({}),
  build: ({ n_embed: width, n_layer, vocab_size, max_seq_len, heads, dim_head }) =>
    partsOf({
      ...{ vocab_size, d_model: width, encoder_layers: n_layer, encoder_ffn_dim: 4 * width },
      ...{ max_position_embeddings: max_seq_len, encoder_attention_heads: heads },
      ...{ head_dim: dim_head, activation_function: "gelu" },
    }, ownNames),
});
registerNetwork(bertEmbedder);

/** The same in diffusers. */
export const ldmBertModel: NetworkMaker<LdmBertConfig> = defineNetwork({
  className: LDM_BERT_MODEL,
  // What transformers writes of training and texts says nothing of what is computed.
  parse: (fields) =>
    parseWith(diffusersSchema, givenFields(fields), `configuration of a ${LDM_BERT_MODEL}`),
  format: (config) => ({ architectures: [LDM_BERT_MODEL], ...config }),
  resize: () => ({}),
  build: (config) => partsOf(config, diffusersNames),
});
registerNetwork(ldmBertModel);
