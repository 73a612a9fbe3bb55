/**
 * Images as pixels: what a network makes in [-1, 1], as bytes.
 *
 * @module
 */

import { pictureSize, type Samples } from "./options.ts";

/** A picture: four bytes a pixel, red, green, blue and opacity, row by row. */
export interface Picture {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** The bytes, as `ImageData` of browsers wants them. */
  readonly rgba: Uint8ClampedArray<ArrayBuffer>;
}

/** Channels that pictures can show: grey, or red, green and blue. */
const SHOWN = [1, 3];

/**
 * The images side by side in a grid, row by row.
 *
 * @param scale Side of the square that a pixel becomes. @default {1}
 * @param gap Pixels between the images, before scaling. @default {1}
 * @param columns Of the grid; by default those that make it as square as it can be.
 * @throws {InputError} If the items are no pictures.
 * @throws {RangeError} If they have neither one channel nor three.
 *
 * @example
 * ```ts
 * import { makeGrid } from "@x/ddpm";
 *
 * const images = { count: 4, shape: [8, 8, 1], data: new Float32Array(256) };
 * console.log(makeGrid(images).width); // 2 * 8 + 3 * 1
 * ```
 */
export function makeGrid(
  images: Samples,
  scale = 1,
  gap = 1,
  columns: number = Math.ceil(Math.sqrt(images.count)),
): Picture {
  const { count } = images, { height, width } = pictureSize(images);
  const rows = Math.ceil(count / columns);
  const outWidth = (columns * (width + gap) + gap) * scale;
  const outHeight = (rows * (height + gap) + gap) * scale;
  const rgba = new Uint8ClampedArray(4 * outWidth * outHeight);
  for (let i = 3; i < rgba.length; i += 4) rgba[i] = 255;
  for (let index = 0; index < count; index++) {
    const left = (index % columns * (width + gap) + gap) * scale;
    const top = (Math.floor(index / columns) * (height + gap) + gap) * scale;
    const { rgba: from } = makePicture(images, index);
    for (let y = 0; y < height * scale; y++) {
      for (let x = 0; x < width * scale; x++) {
        const at = 4 * (Math.floor(y / scale) * width + Math.floor(x / scale));
        rgba.set(from.subarray(at, at + 4), 4 * ((top + y) * outWidth + left + x));
      }
    }
  }
  return { width: outWidth, height: outHeight, rgba };
}

/** One of the images. */
export function makePicture(samples: Samples, index: number): Picture {
  const { data } = samples, { height, width, channels } = pictureSize(samples);
  if (!SHOWN.includes(channels)) {
    throw new RangeError(`Cannot show images of ${channels} channels: pictures have 1 or 3`);
  }
  const size = height * width, rgba = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      // Rounding and clamping is what a clamped array does.
      rgba[4 * i + c] = (data[(index * size + i) * channels + c % channels] + 1) * 127.5;
    }
    rgba[4 * i + 3] = 255;
  }
  return { width, height, rgba };
}
