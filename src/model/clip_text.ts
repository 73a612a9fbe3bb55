/**
 * The text encoder of CLIP (Radford et al. 2021), which Stable Diffusion reads prompts with: the
 * `CLIPTextModel` of transformers, with its names of fields and parameters.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { toFloat } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { clipCount, clipFields, clipLayers, clipWidth, hasEvenHeads } from "./clip_layers.ts";
import { layerNorm } from "./layers.ts";
import { defineNetwork, type Forward, type NetworkMaker, registerNetwork } from "./network.ts";
import type { EncodedTokens } from "./text_encoder.ts";
import { embedTokens, isToken, stateAtLargest } from "./text_layers.ts";

/** The class of it in configurations. */
const CLIP_TEXT_MODEL = "CLIPTextModel";
/** What `eos_token_id` was by mistake once; texts end with the greatest id then. */
const FORMER_END = 2;

/** The fields that say what is computed, with the values that transformers takes without them. */
const schema = z.object({
  ...clipFields,
  vocab_size: clipCount.max(2 ** 20).default(49408),
  max_position_embeddings: clipWidth.default(77),
  eos_token_id: z.int().nonnegative().default(49407),
  model_type: z.enum(["clip_text_model"]).default("clip_text_model"),
}).refine(hasEvenHeads, {
  ...{ path: ["num_attention_heads"], message: "does not divide hidden_size" },
});

/** The configuration, as in files. */
export type ClipTextConfig = Readonly<z.infer<typeof schema>>;

function encode(config: ClipTextConfig, { parameter }: Forward, ids: Tensor): EncodedTokens {
  const { hidden_size: width, layer_norm_eps: eps } = config;
  const net = { parameter }, embeddings = "text_model.embeddings";
  const vectors = embedTokens(net, ids, width, {
    tokens: { name: `${embeddings}.token_embedding`, rows: config.vocab_size },
    places: { name: `${embeddings}.position_embedding`, rows: config.max_position_embeddings },
  });
  const hidden = clipLayers(net, "text_model", vectors, config, true);
  const states = layerNorm(net, "text_model.final_layer_norm", hidden.at(-1)!, eps);
  const end = config.eos_token_id;
  const scores = end === FORMER_END ? toFloat(ids) : isToken(ids, end);
  return { states, pooled: stateAtLargest(scores, states), hidden };
}

/**
 * The class of networks. The pooled vector is the state of the first token that ends the text; as in
 * transformers, that of the first token of all where none does, and of the first one with the
 * greatest id where `eos_token_id` is 2.
 */
export const clipTextModel: NetworkMaker<ClipTextConfig> = defineNetwork({
  className: CLIP_TEXT_MODEL,
  // What transformers writes of training, texts and projections says nothing of what is computed.
  parse: (fields) =>
    parseWith(schema, givenFields(fields), `configuration of a ${CLIP_TEXT_MODEL}`),
  format: (config) => ({ architectures: [CLIP_TEXT_MODEL], ...config }),
  resize: () => ({}),
  build: (config) => ({
    kind: "text encoder",
    tokens: config.max_position_embeddings,
    vocabulary: config.vocab_size,
    width: config.hidden_size,
    forward: (forward, ids) => encode(config, forward, ids),
  }),
});
registerNetwork(clipTextModel);
