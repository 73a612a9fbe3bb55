/**
 * DDIM inversion of images.
 *
 * @module
 */

import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import type { SampleOptions, Samples } from "../../sample/options.ts";
import { Sampler } from "../../sample/sampler.ts";

/** The noise from which DDIM generates each of the images. */
export async function invert(
  device: Device,
  model: Model,
  steps: number,
  images: readonly Samples[],
  options: SampleOptions,
): Promise<Samples[]> {
  const { length: count } = images, [{ data: { length: each } }] = images;
  const settings = { method: "ddim_inverse", steps, batchSize: count } as const;
  using sampler = await Sampler.create(device, model, settings);
  const data = new Float32Array(count * each);
  images.forEach((image, i) => data.set(image.data, i * each));
  const noise = await sampler.sample({ ...options, count, start: { ...images[0], count, data } });
  return images.map((image, i) => ({
    ...image,
    data: noise.data.slice(i * each, (i + 1) * each),
  }));
}
