/**
 * The autoencoder of Stable Diffusion, diffusers' `AutoencoderKL`: of each number of the latents the
 * encoder tells mean and variance (Kingma and Welling, "Auto-encoding variational Bayes", 2014).
 *
 * @module
 */

import { z } from "zod";
import type { CamelKeys } from "../config.ts";
import { clamp } from "../gpu/ops/map.ts";
import { slice } from "../gpu/ops/view.ts";
import { autoencoderFields, formatAutoencoder, parseAutoencoder } from "./autoencoder_config.ts";
import { checkLatents, decoder, encoder, factorOfLevels, layersOf } from "./autoencoder_layers.ts";
import { conv } from "./layers.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";

const CLASS = "AutoencoderKL";

/** Logarithms of variances are limited to these. */
const LEAST = -30, MOST = 20;

/** Of the fields as they are in files. */
export const autoencoderKlSchema = z.strictObject({
  ...autoencoderFields,
  latent_channels: autoencoderFields.latent_channels.default(4),
  force_upcast: autoencoderFields.force_upcast.default(true),
  shift_factor: z.number().default(0),
  use_quant_conv: z.boolean().default(true),
  use_post_quant_conv: z.boolean().default(true),
});

/** The architecture. */
export type AutoencoderKlConfig = CamelKeys<z.infer<typeof autoencoderKlSchema>>;

/** Scaling by channel, which some later pipelines do. */
const only = { latents_mean: null, latents_std: null };
const newer = {
  ...{ mid_block_add_attention: true, shift_factor: 0 },
  ...{ use_quant_conv: true, use_post_quant_conv: true },
};

/** The class of networks. */
export const autoencoderKl: NetworkMaker<AutoencoderKlConfig> = defineNetwork({
  className: CLASS,
  parse: (fields) => parseAutoencoder(autoencoderKlSchema, fields, only, CLASS),
  format: (config) => formatAutoencoder(config, newer),
  resize: ([height, width]) => ({ sample_size: height === width ? width : [height, width] }),
  build: (config) => ({
    kind: "autoencoder",
    itemShape: [null, null, config.inChannels],
    multiple: factorOfLevels(config),
    factor: factorOfLevels(config),
    latentChannels: config.latentChannels,
    scalingFactor: config.scalingFactor,
    shiftFactor: config.shiftFactor,
    encode(forward, pictures) {
      const net = layersOf(config, forward), channels = config.latentChannels;
      const h = encoder(net, pictures, 2 * channels);
      const both = config.useQuantConv ? conv(net, "quant_conv", h, 2 * channels, 1) : h;
      const logVariance = clamp(slice(both, 3, channels, channels), LEAST, MOST);
      return { mean: slice(both, 3, 0, channels), logVariance };
    },
    decode(forward, latents) {
      const net = layersOf(config, forward), channels = config.latentChannels;
      checkLatents(latents, channels);
      return decoder(
        net,
        config.usePostQuantConv ? conv(net, "post_quant_conv", latents, channels, 1) : latents,
      );
    },
  }),
});
registerNetwork(autoencoderKl);
