/**
 * What autoencoders learn, in a step of training.
 *
 * @module
 */

import { mul } from "../gpu/ops/map.ts";
import { reshape } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import type { AutoencoderNetwork, Forward } from "../model/network.ts";
import type { ParameterSource } from "../model/parameters.ts";
import { sizeOf } from "../shape.ts";
import { autoencoderLoss } from "./autoencoder_loss.ts";
import { type Batch, forwardOf } from "./objective.ts";

/** How an autoencoder does on a batch. */
export interface Autoencoding {
  /** `[batch]`; of each picture the mean of the batch, since entries of a codebook are shared. */
  readonly losses: Tensor;
  /** The mean absolute difference of a number, and the divergence of a picture or the codebook's loss. */
  readonly terms: readonly [Tensor, Tensor];
}

/**
 * What an autoencoder makes of pictures. With normals, that is the loss of latent diffusion over the
 * numbers of a picture, so that it does not grow with the size: the mean absolute difference, and
 * 1e-6 of the divergence, which is summed over all latents of a picture, over those numbers.
 */
export function autoencoding(
  network: AutoencoderNetwork,
  parameter: ParameterSource,
  batch: Pick<Batch, "images" | "random">,
  onSegment?: Forward["onSegment"],
): Autoencoding {
  const { images, random } = batch, [count, ...item] = images.shape;
  const { random: _, ...forward } = forwardOf(parameter, batch, onSegment);
  const { loss, reconstruction, penalty } = autoencoderLoss(network, forward, images, {}, random);
  const share = network.quantize ? 1 : 1 / sizeOf(item);
  const ofEach = (x: Tensor, factor: number) =>
    mul(reshape(x, [1]), constant(new Float32Array(count).fill(factor)));
  return {
    losses: ofEach(loss, share),
    terms: [ofEach(reconstruction, share), ofEach(penalty, 1)],
  };
}
