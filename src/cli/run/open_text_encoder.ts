/**
 * Text encoders that a training starts with, by where they are.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Weighted } from "../../model/weights.ts";
import { FoundDualEncoder } from "./found_dual_encoder.ts";
import { openAnyModel } from "./open_model.ts";

/**
 * Loads a network with a text encoder of its own: a dual encoder, or a denoiser of captions.
 *
 * @throws {InputError} If there is none.
 */
export async function openTextEncoder(place: string): Promise<Weighted> {
  const found = await openAnyModel(place).catch((error) => {
    if (error instanceof FoundDualEncoder) return error.model;
    throw error;
  });
  if (found.network.config.text_encoder) return found;
  throw new InputError(
    `Cannot start with the text encoder of ${place}: it is a ${found.network.className}, which has ` +
      "none; train --objective contrastive makes one",
  );
}
