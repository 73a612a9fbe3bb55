/**
 * What is told of an autoencoder where a model is wanted.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { AutoencoderModel } from "../../model/model.ts";

/** An autoencoder, which is a part of models of latents and no model itself. */
export class FoundAutoencoder extends InputError {
  readonly autoencoder: AutoencoderModel;
  /** Whose names its tensors have. */
  readonly family: string;

  constructor(place: string, autoencoder: AutoencoderModel, family: string) {
    const { className, factor, latentChannels } = autoencoder.network;
    super(
      `Cannot use ${place} as a model: it is an autoencoder (${className}), which makes latents of ` +
        `pictures, ${factor} times smaller with ${latentChannels} channels, and pictures of latents, ` +
        "but nothing of noise; give a network that denoises",
    );
    this.autoencoder = autoencoder;
    this.family = family;
  }
}
