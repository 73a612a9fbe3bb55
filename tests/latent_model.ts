/**
 * A model of latents for tests: grey pictures of 8 × 8 with three classes, by latents of 4 × 4 with two
 * channels; random weights.
 *
 * @module
 */

import { autoencoderNetwork, parseNetwork } from "../src/model/network.ts";
import type { Samples } from "../src/sample/options.ts";
import { randomModel } from "./networks.ts";
import { Random } from "./random.ts";

const random = new Random("autoencoder");
const coder = autoencoderNetwork(parseNetwork({
  ...{ _class_name: "AutoencoderKL", in_channels: 1, out_channels: 1, latent_channels: 2 },
  ...{ block_out_channels: [4, 8], norm_num_groups: 2, scaling_factor: 0.5 },
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}));

/** Its autoencoder. */
export const latentAutoencoder = {
  network: coder,
  parameters: Float32Array.from({ length: coder.layout.size }, () => random.between(-0.4, 0.4)),
};

/** The model. */
export const latentModel = {
  ...randomModel(
    parseNetwork({
      ...{ sample_size: 4, in_channels: 2, out_channels: 2, num_class_embeds: 3 },
      ...{ block_out_channels: [8], norm_num_groups: 4 },
      ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] },
    }),
    { num_train_timesteps: 10, clip_sample: false },
  ),
  autoencoder: latentAutoencoder,
};

/** The value of a pixel of {@linkcode picture}, from 0 to 255. */
export const valueAt = (i: number) => (i * 37) % 256;

/** Whether a pixel of it is to be painted anew. */
export const isPainted = (i: number) => i % 8 >= 4;

/** A picture to edit. */
export const picture: Samples = {
  ...{ count: 1, shape: [8, 8, 1] },
  data: Float32Array.from({ length: 64 }, (_, i) => valueAt(i) / 127.5 - 1),
};

/** The mask of what is to be painted anew, a number a pixel. */
export const pixelMask = Float32Array.from({ length: 64 }, (_, i) => Number(isPainted(i)));

/** Within [-1, 1], as pictures are. */
export const clip = (x: number) => Math.max(-1, Math.min(1, x));
