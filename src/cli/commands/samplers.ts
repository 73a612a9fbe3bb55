/**
 * Samplers that fit the device, and pictures back to the noise that makes them.
 *
 * @module
 */

import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { Autoencoder } from "../../sample/autoencoder.ts";
import { fittingBatch } from "../../sample/fitting_batch.ts";
import { LatentSampler } from "../../sample/latent_sampler.ts";
import type { SampleOptions, SamplerOptions, Samples } from "../../sample/options.ts";
import { Sampler } from "../../sample/sampler.ts";

/** What makes pictures. */
export type PictureSampler = Sampler | LatentSampler;

/** A sampler that computes no more images together than fit the device; it makes pictures. */
export const createSampler = (
  device: Device,
  model: Model,
  options: SamplerOptions & { readonly batchSize: number },
): Promise<PictureSampler> =>
  fittingBatch<PictureSampler>(
    options.batchSize,
    (batchSize) =>
      (model.autoencoder ? LatentSampler : Sampler).create(device, model, {
        ...options,
        batchSize,
      }),
  );

/** The noise that ddim would make pictures of. */
export async function invert(
  device: Device,
  model: Model,
  steps: number,
  pictures: Samples,
  options: SampleOptions,
): Promise<Samples> {
  const { count, shape: [height, width] } = pictures, { autoencoder } = model;
  using encoder = autoencoder &&
    await Autoencoder.create(device, autoencoder, { size: [height, width], only: "encode" });
  // That noise goes back to the same picture, so that nothing may be drawn.
  const start = encoder ? await encoder.encode(pictures, { sample: false }) : pictures;
  using sampler = await fittingBatch(
    Math.min(count, 64),
    (batchSize) => Sampler.create(device, model, { method: "ddim_inverse", steps, batchSize }),
  );
  return await sampler.sample({ ...options, count, start });
}
