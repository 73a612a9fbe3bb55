/**
 * What both halves of CLIP (Radford et al. 2021) are made of, with the names of transformers.
 *
 * @module
 */

import { z } from "zod";
import { gelu } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { WithParameters } from "./layers.ts";
import { quickGelu, transformerLayer } from "./text_layers.ts";

/** A number of heads, layers or pixels. */
export const clipCount: z.ZodInt = z.int().positive();
/** A width of vectors; more than anybody has means a damaged file, which must not eat all memory. */
export const clipWidth: z.ZodInt = clipCount.max(65536);

/** The fields of both, with the values that transformers takes for texts without them. */
export const clipFields = {
  hidden_size: clipWidth.default(512),
  intermediate_size: clipWidth.default(2048),
  num_hidden_layers: clipCount.max(200).default(12),
  num_attention_heads: clipCount.default(8),
  hidden_act: z.enum(["quick_gelu", "gelu"]).default("quick_gelu"),
  layer_norm_eps: z.number().positive().default(1e-5),
};

/** Their values. */
export type ClipFields = Readonly<z.infer<z.ZodObject<typeof clipFields>>>;

/** Whether heads share the width evenly. */
export const hasEvenHeads = (config: ClipFields): boolean =>
  config.hidden_size % config.num_attention_heads === 0;

const activations = { quick_gelu: quickGelu, gelu };

/**
 * All layers over tokens `[batch, n, width]`.
 *
 * @param name What the names of their parameters begin with.
 * @returns What goes into each, and what comes out of the last one.
 */
export function clipLayers(
  net: WithParameters,
  name: string,
  x: Tensor,
  config: ClipFields,
  isCausal: boolean,
): Tensor[] {
  const { hidden_size: width, num_attention_heads: heads, layer_norm_eps: eps } = config;
  const hidden = [x];
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const own = (part: string) => `${name}.encoder.layers.${i}.${part}`;
    hidden.push(transformerLayer(net, hidden[i], {
      names: [own("layer_norm1"), own("layer_norm2"), own("mlp.fc1"), own("mlp.fc2")],
      attention: {
        name: own("self_attn"),
        parts: ["q_proj", "k_proj", "v_proj", "out_proj"],
        ...{ heads, size: width / heads, hasBias: true, isCausal },
      },
      ...{ inner: config.intermediate_size, activation: activations[config.hidden_act], eps },
    }));
  }
  return hidden;
}
