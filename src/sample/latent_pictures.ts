/**
 * Masks and masked pictures as latents want them, and what latents look like without decoding them.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { AutoencoderNetwork } from "../model/network.ts";
import { pictureSize, type Samples } from "./options.ts";

/** From this on, a mask says that something is to be painted. */
const PAINTED = 0.5;

/** A mask of pixels, 1 where to paint and 0 elsewhere, in the size of latents, of nearest neighbours. */
export function latentMask(
  mask: ArrayLike<number>,
  [height, width]: readonly number[],
  factor: number,
): Float32Array<ArrayBuffer> {
  const [rows, columns] = [height / factor, width / factor];
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const at = Math.floor(i / columns) * factor * width + i % columns * factor;
    return mask[at] < PAINTED ? 0 : 1;
  });
}

/**
 * Masks of pixels in the size of latents, as {@linkcode latentMask}, of one item or several.
 *
 * @param what They are called in errors.
 * @throws {InputError} If pixels are to be painted, but no latent is.
 */
export function latentMasks(
  masks: ArrayLike<number>,
  size: readonly number[],
  factor: number,
  what: string,
): Float32Array<ArrayBuffer> {
  const pixels = Float32Array.from(masks), each = size[0] * size[1];
  const parts = Array.from({ length: pixels.length / each }, (_, k) => {
    const mask = pixels.subarray(k * each, (k + 1) * each), small = latentMask(mask, size, factor);
    if (small.some((v) => v) || !mask.some((v) => v >= PAINTED)) return small;
    throw new InputError(
      `${what} is too fine: the model paints latents, one for ${factor}x${factor} pixels, and ` +
        "none of these is white where it begins",
    );
  });
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

/** Pictures that are grey where a mask is to be painted. */
export function hideMasked(pictures: Samples, mask: ArrayLike<number>): Samples {
  const { channels } = pictureSize(pictures);
  const data = pictures.data.map((x, i) =>
    mask[Math.floor(i / channels) % mask.length] < PAINTED ? x : 0
  );
  return { ...pictures, data };
}

/** Latents with those that were known where a mask is 0; `known` may be one for all. */
export function keepKnown(latents: Samples, known: Samples, mask: ArrayLike<number>): Samples {
  const { channels } = pictureSize(latents), { length } = known.data;
  const data = latents.data.map((x, i) =>
    mask[Math.floor(i / channels) % mask.length] ? x : known.data[i % length]
  );
  return { ...latents, data };
}

/** Red, green and blue in [-1, 1] of each channel of Stable Diffusion's latents, as fitted by others. */
const COLORS = [
  [0.3512, 0.2297, 0.3227],
  [0.325, 0.4974, 0.235],
  [-0.2829, 0.1762, 0.2721],
  [-0.212, -0.2616, -0.7177],
] as const;

/** Whether latents are those of Stable Diffusion 1 and 2, as their number and their scale say. */
export const hasKnownColors = (
  { className, latentChannels, scalingFactor, shiftFactor }: AutoencoderNetwork,
): boolean =>
  className === "AutoencoderKL" && latentChannels === COLORS.length && scalingFactor === 0.18215 &&
  !shiftFactor;

/** What such latents look like, a pixel each. */
export function latentColors(latents: Samples): Samples {
  const { height, width, channels } = pictureSize(latents), { count, data } = latents;
  const pixels = Float32Array.from({ length: count * height * width * 3 }, (_, i) => {
    const at = Math.floor(i / 3) * channels;
    return COLORS.reduce((sum, weights, c) => sum + weights[i % 3] * data[at + c], 0);
  });
  return { count, shape: [height, width, 3], data: pixels };
}
