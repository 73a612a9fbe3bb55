/**
 * What commands that enlarge images have in common.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type Device, LimitError } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { MAX_NOISE_LEVEL } from "../../model/super_resolution.ts";
import type { SamplerOptions } from "../../sample/options.ts";
import { Upscaler } from "../../sample/upscaler.ts";
import type { Flag } from "../terminal/flags.ts";

/** How much noise pictures get before they are enlarged. */
export const noiseLevelFlag = {
  kind: "number",
  min: 0,
  max: MAX_NOISE_LEVEL,
} as const satisfies Omit<Flag, "help">;

/** The size of the tiles of a model of super-resolution. */
export function tileOf({ network }: Model, place: string): readonly [number, number, number] {
  const [height, width, channels] = network.itemShape;
  if (height && width && channels) return [height, width, channels];
  throw new InputError(`Cannot enlarge by ${place}: its configuration has no sample_size`);
}

/** An upscaler that computes no more tiles together than fit the device. */
export async function createUpscaler(
  device: Device,
  model: Model,
  options: Omit<SamplerOptions, "noise"> & { readonly batchSize: number },
): Promise<Upscaler> {
  try {
    return await Upscaler.create(device, model, options);
  } catch (error) {
    if (!(error instanceof LimitError) || options.batchSize === 1) throw error;
    const batchSize = Math.ceil(options.batchSize / 2);
    return await createUpscaler(device, model, { ...options, batchSize });
  }
}
