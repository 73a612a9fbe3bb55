/**
 * A UNet with a text encoder of its own, which learn together to paint what captions say: one network,
 * one file. Bytes of the caption go through a small transformer; the UNet attends to their states, and
 * has their mean beside the timestep (as Imagen has, Saharia et al. 2022).
 *
 * Its condition is `tokens`, the bytes of a caption; padding alone is no caption, which is what
 * training shows at times and guidance compares with.
 *
 * @module
 */

import { parseWith } from "../config.ts";
import { ByteTokenizer } from "../text/byte_tokenizer.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";
import { below } from "./parameters.ts";
import {
  textTransformer,
  type TextTransformerConfig,
  textTransformerSchema,
} from "./text_transformer.ts";
import { multipleOf, unet2dCondition, unetCondition } from "./unet_condition.ts";
import {
  formatUNetConditionConfig,
  parseUNetConditionConfig,
  type UNetConditionConfig,
  unetConditionSchema,
} from "./unet_condition_config.ts";

/** The architecture of a UNet with a text encoder. */
export interface TextUNetConfig {
  /** Of the UNet, as the text encoder makes it. */
  readonly unet: UNetConditionConfig;
  /** Of the text encoder. */
  readonly text: TextTransformerConfig;
}

/** What the class of networks is called in files. */
export const TEXT_UNET = "TextUNet2DModel";

/** Of the fields as they are in files. */
export const textUNetSchema = unetConditionSchema.extend({
  text_encoder: textTransformerSchema.prefault({}),
});

/** Fields of the UNet that the text encoder decides. */
const textFields = ({ width, max_length }: TextTransformerConfig) => ({
  ...{ cross_attention_dim: width, encoder_sequence_length: max_length },
  ...{ class_embed_type: "projection", projection_class_embeddings_input_dim: width },
});

/** The class of networks. */
export const textUNet: NetworkMaker<TextUNetConfig> = defineNetwork({
  className: TEXT_UNET,
  parse({ text_encoder = {}, ...fields }) {
    const text = parseWith(textTransformerSchema, text_encoder, "configuration of a text encoder");
    return { text, unet: parseUNetConditionConfig({ ...fields, ...textFields(text) }) };
  },
  format({ unet, text }) {
    const told = Object.keys(textFields(text));
    const fields = Object.entries(formatUNetConditionConfig(unet));
    return {
      ...Object.fromEntries(fields.filter(([name]) => !told.includes(name))),
      text_encoder: text,
    };
  },
  resize: unet2dCondition.resize,
  build({ unet, text }) {
    const tokenizer = new ByteTokenizer({ length: text.max_length });
    return {
      kind: "denoiser",
      itemShape: [...(unet.sampleSize ?? [null, null]), unet.inChannels],
      multiple: multipleOf(unet),
      outChannels: unet.outChannels,
      hasDropout: unet.dropout > 0,
      conditions: () => ({
        tokens: {
          ...{ shape: [text.max_length], dtype: "i32" },
          ...{ below: text.vocab_size, none: ByteTokenizer.none },
        },
      }),
      tokenize: (caption) => tokenizer.encode(caption).ids,
      forward({ parameter, ...forward }, { conditions, ...inputs }) {
        const encode = below(parameter, "text_encoder");
        const { states, pooled } = textTransformer(encode, text, conditions.tokens);
        return unetCondition(unet, { ...forward, parameter: below(parameter, "unet") }, {
          ...inputs,
          conditions: { encoder_hidden_states: states, labels: pooled },
        });
      },
    };
  },
});
registerNetwork(textUNet);
