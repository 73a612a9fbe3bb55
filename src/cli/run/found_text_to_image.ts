/**
 * What is told of a pipeline that paints texts where one network is wanted.
 *
 * @module
 */

import { InputError } from "../../errors.ts";

/** A pipeline of text encoder, UNet and autoencoder, which is more than a model. */
export class FoundTextToImage extends InputError {
  /** @param network Where its UNet is by itself, if it is anywhere. */
  constructor(place: string, what: string, network?: string) {
    super(
      `Cannot use ${place} as a model of one network: it is a ${what}, which paints texts with a text ` +
        "encoder, a UNet and an autoencoder; sample --prompt and info take it" +
        (network ? `, and ${network} is its UNet alone` : ""),
    );
  }
}
