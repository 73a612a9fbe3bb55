/**
 * Samplers that fit the device, and pictures back to the noise that makes them.
 *
 * @module
 */

import { type Device, LimitError } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import type { SampleOptions, SamplerOptions, Samples } from "../../sample/options.ts";
import { Sampler } from "../../sample/sampler.ts";

/** A sampler that computes no more images together than fit the device. */
export async function createSampler(
  device: Device,
  model: Model,
  options: SamplerOptions & { readonly batchSize: number },
): Promise<Sampler> {
  try {
    return await Sampler.create(device, model, options);
  } catch (error) {
    if (!(error instanceof LimitError) || options.batchSize === 1) throw error;
    const batchSize = Math.ceil(options.batchSize / 2);
    return await createSampler(device, model, { ...options, batchSize });
  }
}

/** The noise that ddim would make images of. */
export async function invert(
  device: Device,
  model: Model,
  steps: number,
  start: Samples,
  options: SampleOptions,
): Promise<Samples> {
  const batchSize = Math.min(start.count, 64);
  using sampler = await createSampler(device, model, { method: "ddim_inverse", steps, batchSize });
  return await sampler.sample({ ...options, count: start.count, start });
}
