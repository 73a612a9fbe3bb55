/**
 * The autoencoder of latent diffusion with a codebook, diffusers' `VQModel` (van den Oord et al.,
 * "Neural discrete representation learning", 2017; Esser et al., "Taming transformers", 2021).
 *
 * @module
 */

import { z } from "zod";
import type { CamelKeys } from "../config.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, mul, square, sub } from "../gpu/ops/map.ts";
import { nearestRow } from "../gpu/ops/nearest.ts";
import { mean } from "../gpu/ops/sum.ts";
import { reshape, stopGradient } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { sizeOf } from "../shape.ts";
import { autoencoderFields, formatAutoencoder, parseAutoencoder } from "./autoencoder_config.ts";
import { checkLatents, decoder, encoder, factorOfLevels, layersOf } from "./autoencoder_layers.ts";
import { conv } from "./layers.ts";
import {
  defineNetwork,
  type Forward,
  type NetworkMaker,
  type Quantized,
  registerNetwork,
} from "./network.ts";

const CLASS = "VQModel";

/** Of the fields as they are in files. */
export const vqModelSchema = z.strictObject({
  ...autoencoderFields,
  latent_channels: autoencoderFields.latent_channels.default(3),
  force_upcast: autoencoderFields.force_upcast.default(false),
  num_vq_embeddings: z.int().positive().max(2 ** 24).default(256),
  vq_embed_dim: z.int().positive().max(65536).optional(),
});

/** The architecture. */
export type VqModelConfig = CamelKeys<z.infer<typeof vqModelSchema>>;

/** Norms that see latents, as those of MoVQ, and decoding by numbers instead of latents. */
const only = { norm_type: "group", lookup_from_codebook: false };
const newer = { mid_block_add_attention: true, force_upcast: false };

/** Weight of the second term of the loss. */
const COMMITMENT = 0.25;

const codeChannels = ({ vqEmbedDim, latentChannels }: VqModelConfig) =>
  vqEmbedDim ?? latentChannels;

/**
 * The nearest entries. The loss is the one that diffusers and the published models have, with the
 * weight at the term of the codebook, mean (sg(q) - z)² + 0.25 mean (q - sg(z))², and not at that of
 * the latents as in the paper.
 */
function quantize(config: VqModelConfig, { parameter }: Forward, latents: Tensor): Quantized {
  const { shape } = latents, width = codeChannels(config);
  checkLatents(latents, width);
  const codebook = parameter({
    ...{ name: "quantize.embedding.weight", shape: [config.numVqEmbeddings, width] },
    // Near zero, so that no entry is too far off ever to be the nearest.
    ...{ order: "plain", init: "xavier", isTrained: true },
  });
  const rows = reshape(latents, [sizeOf(shape) / width, width]);
  const indices = nearestRow(rows, codebook);
  const nearest = reshape(gather(codebook, indices), shape);
  const distance = (a: Tensor, b: Tensor) => mean(square(sub(stopGradient(a), b)));
  return {
    quantized: add(latents, stopGradient(sub(nearest, latents))),
    indices: reshape(indices, shape.slice(0, -1)),
    loss: add(distance(nearest, latents), mul(distance(latents, nearest), COMMITMENT)),
  };
}

/** The class of networks. */
export const vqModel: NetworkMaker<VqModelConfig> = defineNetwork({
  className: CLASS,
  parse: (fields) => parseAutoencoder(vqModelSchema, fields, only, CLASS),
  format: (config) => ({ ...formatAutoencoder(config, newer), norm_type: "group" }),
  resize: ([height, width]) => ({ sample_size: height === width ? width : [height, width] }),
  build: (config) => ({
    kind: "autoencoder",
    itemShape: [null, null, config.inChannels],
    multiple: factorOfLevels(config),
    factor: factorOfLevels(config),
    latentChannels: codeChannels(config),
    scalingFactor: config.scalingFactor,
    shiftFactor: 0,
    encode(forward, pictures) {
      const net = layersOf(config, forward);
      const h = encoder(net, pictures, config.latentChannels);
      return { mean: conv(net, "quant_conv", h, codeChannels(config), 1) };
    },
    decode(forward, latents, isQuantized = false) {
      const net = layersOf(config, forward);
      checkLatents(latents, codeChannels(config));
      const codes = isQuantized ? latents : quantize(config, forward, latents).quantized;
      return decoder(net, conv(net, "post_quant_conv", codes, config.latentChannels, 1));
    },
    quantize: (forward, latents) => quantize(config, forward, latents),
  }),
});
registerNetwork(vqModel);
