/**
 * The text encoders of latent diffusion and Stable Diffusion as CompVis's `ldm` saves them below
 * `cond_stage_model.`: transformers' CLIP, and a transformer over the tokens of BERT.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Fields } from "../network.ts";
import {
  agree,
  below,
  countOf,
  type FamilyNetwork,
  rename,
  sizeIn,
  type TensorMap,
} from "./family.ts";

/** What CLIP is told by; some versions of transformers leave out the first part of its names. */
const CLIP = "transformer.text_model.", BARE_CLIP = "transformer.embeddings.";
const BERT = "transformer.token_emb.weight";
/** What other parts of CLIP leave in such files, which no text needs. */
const BESIDE = /^(transformer\.)?(logit_scale|text_projection\.weight)$/;

/** Numbers of a head of CLIP and of x-transformers. */
const HEAD = 64;

/** What a text encoder is not, that stands in its place in files of other models. */
export function explainTextEncoder(stage: TensorMap): string {
  if (!stage.size) return "no cond_stage_model";
  if (stage.has("model.token_embedding.weight")) return "cond_stage_model of OpenCLIP";
  if (stage.has("embedding.weight")) return "cond_stage_model of classes";
  return `cond_stage_model of ${stage.keys().next().value}`;
}

/**
 * The text encoder below `cond_stage_model.`.
 *
 * @param given What is known beside it, by the names of its configuration.
 * @returns `undefined` if it is none that is known.
 * @throws {InputError} If tensors are missing, or contradict what is known.
 */
export function readLdmTextEncoder(stage: TensorMap, given: Fields): FamilyNetwork | undefined {
  const used = new Map([...stage].filter(([name]) => !BESIDE.test(name)));
  const all = [...used.keys()];
  if (all.some((name) => name.startsWith(CLIP))) return clipOf(below(used, "transformer."), given);
  if (all.some((name) => name.startsWith(BARE_CLIP))) {
    const bare = below(used, "transformer.");
    return clipOf(rename(bare, [[/^/, "text_model."]]), given);
  }
  if (used.has(BERT)) return bertOf(below(used, "transformer."), given);
}

function clipOf(tensors: TensorMap, given: Fields): FamilyNetwork {
  const embeddings = "text_model.embeddings", layers = "text_model.encoder.layers";
  const width = sizeIn(tensors, `${embeddings}.token_embedding.weight`, 1);
  const vocabulary = sizeIn(tensors, `${embeddings}.token_embedding.weight`, 0);
  const told: Fields = {
    ...{ vocab_size: vocabulary, hidden_size: width },
    intermediate_size: sizeIn(tensors, `${layers}.0.mlp.fc1.weight`, 0),
    num_hidden_layers: countOf(tensors, `${layers}.*.`),
    max_position_embeddings: sizeIn(tensors, `${embeddings}.position_embedding.weight`, 0),
  };
  agree(given, told);
  const isKnown = given.num_attention_heads != null && given.hidden_act != null;
  if (given.num_attention_heads == null && width % HEAD) {
    throw new InputError(
      `its text encoder has ${width} channels, of how many heads must be told: num_attention_heads ` +
        "of text_encoder",
    );
  }
  return {
    network: {
      ...{ num_attention_heads: width / HEAD, hidden_act: "quick_gelu" },
      ...{ eos_token_id: vocabulary - 1, ...given, ...told, architectures: ["CLIPTextModel"] },
    },
    tensors,
    guesses: isKnown ? [] : [
      `its text encoder has heads of ${HEAD} and the activation quick_gelu where nothing else is ` +
      "said, as CLIP ViT-L/14; text_encoder in a config.json beside it can tell num_attention_heads " +
      "and hidden_act",
    ],
  };
}

function bertOf(tensors: TensorMap, given: Fields): FamilyNetwork {
  const layers = "attn_layers.layers";
  const told: Fields = {
    n_embed: sizeIn(tensors, "token_emb.weight", 1),
    n_layer: countOf(tensors, `${layers}.*.`) / 2,
    vocab_size: sizeIn(tensors, "token_emb.weight", 0),
    max_seq_len: sizeIn(tensors, "pos_emb.emb.weight", 0),
  };
  agree(given, told);
  const heads = sizeIn(tensors, `${layers}.0.1.to_q.weight`, 0) / HEAD;
  return {
    network: { heads, ...given, ...told, _class_name: "BERTEmbedder" },
    tensors,
    guesses: given.heads == null && given.dim_head == null
      ? [`its text encoder has heads of ${HEAD}, as those of x-transformers`]
      : [],
  };
}
