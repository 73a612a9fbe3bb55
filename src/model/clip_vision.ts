/**
 * The half of CLIP (Radford et al. 2021) that sees pictures: the `CLIPVisionModel` of transformers, a
 * vision transformer, with its names of fields and parameters.
 *
 * @module
 */

import { z } from "zod";
import { concat } from "../gpu/ops/concat.ts";
import { add } from "../gpu/ops/map.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { broadcastTo, permute, reshape, slice } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { clipCount, clipFields, clipLayers, clipWidth, hasEvenHeads } from "./clip_layers.ts";
import { layerNorm, type WithParameters } from "./layers.ts";

/** The fields that say what is computed, with the values that transformers takes without them. */
export const clipVisionSchema = z.object({
  ...clipFields,
  hidden_size: clipWidth.default(768),
  intermediate_size: clipWidth.default(3072),
  num_attention_heads: clipCount.default(12),
  image_size: clipCount.max(4096).default(224),
  patch_size: clipCount.default(32),
  num_channels: z.literal(3).default(3),
}).refine(hasEvenHeads, {
  ...{ path: ["num_attention_heads"], message: "does not divide hidden_size" },
}).refine((config) => config.patch_size <= config.image_size, {
  ...{ path: ["patch_size"], message: "is larger than image_size" },
});

/** The configuration, as in files. */
export type ClipVisionConfig = Readonly<z.infer<typeof clipVisionSchema>>;

/**
 * What is said of each picture, `[batch, hidden_size]`: the state of the token that stands for no
 * patch of it, normalised.
 *
 * @param name What the names of the parameters begin with.
 * @param pictures `[batch, image_size, image_size, 3]`, normalised.
 */
export function seePictures(
  net: WithParameters,
  name: string,
  pictures: Tensor,
  config: ClipVisionConfig,
): Tensor {
  const { hidden_size: width, patch_size: patch, layer_norm_eps: eps } = config;
  const [batch] = pictures.shape, side = Math.floor(config.image_size / patch), n = side * side;
  const embeddings = `${name}.embeddings`;
  const plain = (part: string, shape: readonly number[]) =>
    net.parameter({
      ...{ name: `${embeddings}.${part}`, shape, order: "plain", init: "normal", isTrained: true },
    });
  const kernel = net.parameter({
    ...{ name: `${embeddings}.patch_embedding.weight`, shape: [patch, patch, 3, width] },
    ...{ order: "conv", init: "xavier", isTrained: true },
  });
  // Patches do not overlap, so that their convolution is one product. What is left over at the right
  // and below is not seen.
  const whole = slice(slice(pictures, 1, 0, side * patch), 2, 0, side * patch);
  const cut = permute(reshape(whole, [batch, side, patch, side, patch, 3]), [0, 1, 3, 2, 4, 5]);
  const inner = 3 * patch * patch;
  const patches = linear(
    reshape(cut, [batch, n, inner]),
    permute(reshape(kernel, [inner, width]), [1, 0]),
  );
  const own = broadcastTo(reshape(plain("class_embedding", [width]), [1, 1, width]), [
    ...[batch, 1, width],
  ]);
  const places = plain("position_embedding.weight", [n + 1, width]);
  // The name is transformers' own slip.
  const first = layerNorm(net, `${name}.pre_layrnorm`, add(concat([own, patches], 1), places), eps);
  const last = clipLayers(net, name, first, config, false).at(-1)!;
  const state = reshape(slice(last, 1, 0, 1), [batch, width]);
  return layerNorm(net, `${name}.post_layernorm`, state, eps);
}
