/**
 * Pictures in memory, and how they become images of one size: alpha laid over a background, color
 * or grey, resized and cropped.
 *
 * @module
 */

import { InputError } from "../errors.ts";

/** A picture, 8 bits a channel. */
export interface Raster {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** 1 grey, 2 grey and alpha, 3 red, green and blue, 4 those and alpha, which is straight. */
  readonly channels: number;
  /** `[height, width, channels]`. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A color, each part from 0 to 255. */
export type Color = readonly [red: number, green: number, blue: number];

/** What images should be like. */
export interface Format {
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
  /** 1 for grey, 3 for red, green and blue. */
  readonly channels: number;
  /** What shows where pictures are transparent. */
  readonly background: Color;
}

/** Grey as seen by Rec. 601, the weights of JPEG and of Pillow. */
const luma = (r: number, g: number, b: number): number =>
  Math.round((299 * r + 587 * g + 114 * b) / 1000);

/** The picture in 1 or 3 channels, over a background if it is transparent. */
export function convert(raster: Raster, channels: number, background: Color): Raster {
  if (raster.channels === channels) return raster;
  const { width, height, channels: from } = raster, source = raster.data;
  const data = new Uint8Array(width * height * channels);
  const hasAlpha = from % 2 === 0, isGrey = from < 3;
  const greyBackground = luma(...background);
  for (let i = 0, at = 0, to = 0; i < width * height; i++, at += from, to += channels) {
    const alpha = hasAlpha ? source[at + from - 1] / 255 : 1;
    if (channels === 1) {
      const grey = isGrey ? source[at] : luma(source[at], source[at + 1], source[at + 2]);
      data[to] = hasAlpha ? Math.round(alpha * grey + (1 - alpha) * greyBackground) : grey;
    } else {
      for (let c = 0; c < 3; c++) {
        const value = source[isGrey ? at : at + c];
        data[to + c] = hasAlpha ? Math.round(alpha * value + (1 - alpha) * background[c]) : value;
      }
    }
  }
  return { width, height, channels, data };
}

/** A part of a picture; its edges may lie between pixels. */
interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** The pixels along one axis that a pixel of the result is made of, and their shares. */
interface Taps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Float64Array;
  /** Weights a pixel of the result has room for. */
  readonly room: number;
}

/** How much pixels count, by their distance in pixels of the coarser grid. */
export interface ResizeFilter {
  /** From here on they do not. */
  readonly support: number;
  /** The weight at a distance, before weights are divided by their sum. */
  readonly weight: (distance: number) => number;
}

/** Linear interpolation where pictures are enlarged, a weighted mean where they are reduced. */
const triangle: ResizeFilter = { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };

/** Keys's cubic convolution of 1981 with a = -1/2, which is Pillow's `BICUBIC`. */
export const cubic: ResizeFilter = {
  support: 2,
  weight(x) {
    const d = Math.abs(x);
    return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
  },
};

/** A filter as wide as its support on the coarser grid. */
function tapsOf(
  { support, weight: weigh }: ResizeFilter,
  size: number,
  from: number,
  length: number,
  target: number,
): Taps {
  const scale = length / target, pixel = Math.max(1, scale), reach = support * pixel;
  const room = Math.ceil(2 * reach) + 2;
  const first = new Int32Array(target), count = new Int32Array(target);
  const weights = new Float64Array(target * room);
  for (let i = 0; i < target; i++) {
    const center = from + (i + 0.5) * scale;
    const low = Math.max(0, Math.floor(center - reach + 0.5));
    const high = Math.min(size, Math.floor(center + reach + 0.5));
    let sum = 0;
    for (let x = low; x < high; x++) {
      const weight = weigh((x + 0.5 - center) / pixel);
      weights[i * room + x - low] = weight;
      sum += weight;
    }
    first[i] = low;
    count[i] = high - low;
    for (let k = 0; k < count[i]; k++) weights[i * room + k] /= sum;
  }
  return { first, count, weights, room };
}

/** A part of a picture in another size, without aliasing, rounded once at the end. */
export function resize(
  raster: Raster,
  width: number,
  height: number,
  box: Box,
  filter: ResizeFilter = triangle,
): Raster {
  const { channels, data } = raster, stride = raster.width * channels;
  const across = tapsOf(filter, raster.width, box.left, box.width, width);
  const down = tapsOf(filter, raster.height, box.top, box.height, height);
  const last = height - 1;
  const top = down.first[0], bottom = down.first[last] + down.count[last];
  const rows = new Float32Array((bottom - top) * width * channels);
  for (let y = top; y < bottom; y++) {
    for (let x = 0; x < width; x++) {
      const to = ((y - top) * width + x) * channels, from = y * stride + across.first[x] * channels;
      for (let k = 0; k < across.count[x]; k++) {
        const weight = across.weights[x * across.room + k];
        for (let c = 0; c < channels; c++) rows[to + c] += weight * data[from + k * channels + c];
      }
    }
  }
  const out = new Uint8Array(width * height * channels), size = width * channels;
  const row = new Float64Array(size);
  for (let y = 0; y < height; y++) {
    row.fill(0);
    for (let k = 0; k < down.count[y]; k++) {
      const weight = down.weights[y * down.room + k], from = (down.first[y] - top + k) * size;
      for (let i = 0; i < size; i++) row[i] += weight * rows[from + i];
    }
    for (let i = 0; i < size; i++) {
      out[y * size + i] = Math.min(255, Math.max(0, Math.round(row[i])));
    }
  }
  return { width, height, channels, data: out };
}

/**
 * The picture as an image of a format, its sides in proportion. What does not fit is cut off evenly
 * at both ends, or left on, for whoever wants to choose where to cut.
 */
export function fit(picture: Raster, format: Format, crop: "center" | "random"): Raster {
  const { height, width, channels, background } = format;
  const raster = convert(picture, channels, background);
  if (raster.width === width && raster.height === height) return raster;
  const scale = Math.min(raster.width / width, raster.height / height);
  if (crop === "center") {
    const box = { width: width * scale, height: height * scale };
    const left = (raster.width - box.width) / 2, top = (raster.height - box.height) / 2;
    return resize(raster, width, height, { ...box, left, top });
  }
  const [w, h] = [raster.width, raster.height].map((side) => Math.round(side / scale));
  if (w > MAX_STRIP * width || h > MAX_STRIP * height) {
    throw new InputError(`${picture.width}x${picture.height} is too long a strip to crop from`);
  }
  return resize(raster, w, h, { left: 0, top: 0, width: raster.width, height: raster.height });
}

/** How many images long a picture may be, at most. */
const MAX_STRIP = 64;

/** Bytes as numbers in [-1, 1]. */
const levels = Float32Array.from({ length: 256 }, (_, i) => i / 127.5 - 1);

/** Where an image is cut out of a picture, and how it is turned. */
export interface Placement {
  /** Columns and rows from the picture's corner to the image's; beyond an edge it is repeated. */
  readonly left: number;
  readonly top: number;
  /** Whether left and right are exchanged. */
  readonly isFlipped: boolean;
}

/** Writes a part of a picture as `[height, width, channels]` in [-1, 1]. */
export function writeImage(
  { width, height, channels, data }: Raster,
  format: Format,
  { left, top, isFlipped }: Placement,
  out: Float32Array,
  offset: number,
): void {
  if (!left && !top && !isFlipped && width === format.width && height === format.height) {
    for (let i = 0; i < data.length; i++) out[offset + i] = levels[data[i]];
    return;
  }
  const clamp = (x: number, size: number) => x < 0 ? 0 : x >= size ? size - 1 : x;
  const columns = Int32Array.from(
    { length: format.width },
    (_, x) => clamp((isFlipped ? format.width - 1 - x : x) + left, width) * channels,
  );
  for (let y = 0, to = offset; y < format.height; y++) {
    const row = clamp(y + top, height) * width * channels;
    for (let x = 0; x < columns.length; x++) {
      const from = row + columns[x];
      for (let c = 0; c < channels; c++) out[to++] = levels[data[from + c]];
    }
  }
}
