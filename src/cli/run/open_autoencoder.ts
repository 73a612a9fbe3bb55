/**
 * Autoencoders by where they are.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Model } from "../../model/model.ts";
import type { AutoencoderNetwork } from "../../model/network.ts";
import type { Weighted } from "../../model/weights.ts";
import { FoundAutoencoder } from "./found_autoencoder.ts";
import { loadLocated, locate } from "./load_model.ts";

/**
 * Loads an autoencoder: a file, also of latent diffusion, a folder of a training or of diffusers, or
 * that of a model of latents.
 *
 * @throws {InputError} If there is none.
 */
export async function openAutoencoder(place: string): Promise<Weighted<AutoencoderNetwork>> {
  let model: Model;
  try {
    model = await loadLocated(await locate(place));
  } catch (error) {
    if (error instanceof FoundAutoencoder) return error.autoencoder;
    throw error;
  }
  if (model.autoencoder) return model.autoencoder;
  throw new InputError(
    `Cannot use ${place} as an autoencoder: it is a ${model.network.className}; train one with ` +
      "--objective autoencoder, or give the vae folder of a model of diffusers",
  );
}
