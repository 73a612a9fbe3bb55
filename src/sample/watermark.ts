/**
 * An invisible watermark in the pixels of a picture: a short text, spread over all of it.
 *
 * It is a scheme of this package, not that of Stable Diffusion's scripts. The luma is cut into blocks
 * of 8 × 8 pixels on the grid of JPEG. Each bit has cosine coefficients of its own, drawn from all
 * blocks, and moves their sum with random signs to the nearest of the levels that mean it
 * (spread-transform dither modulation, Chen and Wornell 2001), so that what the picture shows does not
 * disturb it. A checksum tells whether there is a text. It survives JPEG and noise, and nothing that
 * moves pixels: cutting, turning, another size.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { crc32 } from "../formats/crc32.ts";
import type { Picture } from "./pixels.ts";
import { philox, toInteger } from "../gpu/philox.ts";
import { formatBytes } from "../units.ts";

/** The longest text, in bytes of UTF-8. */
const TEXT = 20;
/** Bits of text and checksum. */
const BITS = 8 * (TEXT + 4);
/** The side of a block, and the least blocks of a picture: 256 × 256 pixels. */
const SIDE = 8, LEAST = 1024;
/**
 * Coefficients that are moved, the middle of those that JPEG keeps best: row, column, and the multiples
 * to which JPEG of quality 75 rounds them.
 */
const PLACES = [
  ...[[0, 2, 5], [1, 1, 6], [2, 0, 7], [3, 0, 7], [2, 1, 7], [1, 2, 7], [0, 3, 8]],
  ...[[0, 4, 12], [1, 3, 10], [2, 2, 8], [3, 1, 9], [4, 0, 9]],
] as const;
/** The distance of levels of a bit, in the mean of its coefficients. */
const STEP = 11;
/** How often rounding and clipping of pixels are made up for. */
const ROUNDS = 12;
/** How coarsely coefficients may be rounded for a text to count as written: quality 75, and 50. */
const CHECKED = [0, 1, 1.5, 2];
/** As near to its level is near enough for a bit. */
const NEAR = 1 / 32;
/** Keeps the numbers of watermarks apart from all others. */
const KEY = [0x64647077, 0x6d61726b] as const;

/** Rec. 601, as JPEG has it. */
const LUMA = [0.299, 0.587, 0.114] as const;

/** Cosines of the blocks, orthonormal: coefficient u of pixel x. */
const cosines = Float64Array.from({ length: SIDE * SIDE }, (_, i) => {
  const u = Math.floor(i / SIDE), x = i % SIDE;
  return Math.sqrt((u ? 2 : 1) / SIDE) * Math.cos((2 * x + 1) * u * Math.PI / (2 * SIDE));
});

/** The pixels of a block as they are added up for each place. */
const patterns = PLACES.map(([v, u]) =>
  Float64Array.from(
    { length: SIDE * SIDE },
    (_, i) => cosines[v * SIDE + Math.floor(i / SIDE)] * cosines[u * SIDE + i % SIDE],
  )
);

/** Which coefficients a bit has, and their signs; the first level of each. */
interface Spread {
  readonly columns: number;
  /** Coefficients of a bit. */
  readonly each: number;
  /** Coefficients by their bits, one bit after the other. */
  readonly order: Int32Array;
  readonly signs: Int8Array;
  readonly dither: Float64Array;
}

/** As a picture of a size has it; `undefined` where it is too small. */
function spreadOf(width: number, height: number): Spread | undefined {
  const columns = Math.floor(width / SIDE), blocks = columns * Math.floor(height / SIDE);
  if (blocks < LEAST) return undefined;
  const count = blocks * PLACES.length, each = Math.floor(count / BITS);
  const order = Int32Array.from({ length: count }, (_, i) => i), signs = new Int8Array(count);
  const words = new Uint32Array(4);
  for (let i = count - 1; i >= 0; i--) {
    philox([i, 0, 0, 0], KEY, words);
    const other = toInteger(words[0], i + 1);
    [order[i], order[other]] = [order[other], order[i]];
    signs[i] = words[1] & 1 ? 1 : -1;
  }
  const dither = Float64Array.from({ length: BITS }, (_, bit) => {
    philox([bit, 1, 0, 0], KEY, words);
    return words[0] / 2 ** 32;
  });
  return { columns, each, order, signs, dither };
}

/** The luma of pixels. */
function lumaOf({ width, height, rgba }: Picture): Float64Array {
  return Float64Array.from(
    { length: width * height },
    (_, i) => LUMA[0] * rgba[4 * i] + LUMA[1] * rgba[4 * i + 1] + LUMA[2] * rgba[4 * i + 2],
  );
}

/** The corner of the block of a coefficient. */
const cornerOf = (coefficient: number, columns: number, width: number): number => {
  const block = Math.floor(coefficient / PLACES.length);
  return Math.floor(block / columns) * SIDE * width + block % columns * SIDE;
};

/**
 * The mean of each bit, in levels: whole ones mean 0, and those and a half 1.
 *
 * @param coarseness How coarsely coefficients are rounded before; 1 is JPEG of quality 75, and 0 not at
 * all.
 */
function measure(
  luma: Float64Array,
  width: number,
  spread: Spread,
  coarseness = 0,
): Float64Array {
  const { columns, each, order, signs, dither } = spread, unit = 1 / (STEP * each);
  return Float64Array.from({ length: BITS }, (_, bit) => {
    let sum = 0;
    for (let k = bit * each; k < (bit + 1) * each; k++) {
      const from = cornerOf(order[k], columns, width), pattern = patterns[order[k] % PLACES.length];
      let value = 0;
      for (let i = 0; i < pattern.length; i++) {
        value += pattern[i] * luma[from + (i >> 3) * width + (i & 7)];
      }
      const multiple = coarseness * PLACES[order[k] % PLACES.length][2];
      sum += signs[k] * (multiple ? Math.round(value / multiple) * multiple : value);
    }
    return sum * unit + dither[bit];
  });
}

/** How far a sum is from the nearest level of a bit. */
function missing(level: number, bit: number): number {
  const target = Math.round(level - bit / 2) + bit / 2;
  return target - level;
}

/** The bit that a level means. */
const bitOf = (level: number): number => Number(Math.abs(missing(level, 1)) < 1 / 4);

/** The bits of a text, which zeros fill up, and of its checksum. */
function encode(text: string): Uint8Array | undefined {
  const bytes = new TextEncoder().encode(text);
  if (!bytes.length || bytes.length > TEXT || bytes.includes(0)) return undefined;
  const payload = new Uint8Array(TEXT + 4);
  payload.set(bytes);
  new DataView(payload.buffer).setUint32(TEXT, crc32(payload.subarray(0, TEXT)));
  return Uint8Array.from({ length: BITS }, (_, i) => payload[i >> 3] >> (i & 7) & 1);
}

/** The text of bits, if its checksum says that it is one. */
function decode(bits: ArrayLike<number>): string | undefined {
  const payload = new Uint8Array(TEXT + 4);
  for (let i = 0; i < BITS; i++) payload[i >> 3] |= bits[i] << (i & 7);
  const text = payload.subarray(0, TEXT), end = text.indexOf(0);
  if (new DataView(payload.buffer).getUint32(TEXT) !== crc32(text)) return undefined;
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    return decoder.decode(text.subarray(0, end < 0 ? TEXT : end)) || undefined;
  } catch {
    return undefined;
  }
}

/**
 * Checks a text and the size of a picture that is to carry it.
 *
 * @throws {InputError} If the text is empty or too long, or the picture too small.
 */
export function checkWatermark(text: string, { width, height }: Omit<Picture, "rgba">): void {
  if (!encode(text)) {
    throw new InputError(
      `Cannot mark pictures with ${JSON.stringify(text)}: as UTF-8 a watermark takes 1 to ` +
        `${formatBytes(TEXT)}, and this one ${formatBytes(new TextEncoder().encode(text).length)}`,
    );
  }
  if (Math.floor(width / SIDE) * Math.floor(height / SIDE) >= LEAST) return;
  throw new InputError(
    `Cannot mark a picture of ${width}x${height}: a watermark needs as many pixels as 256x256 have`,
  );
}

/**
 * A picture with a text in it that is not seen; it is the same for the eye.
 *
 * @param text 1 to 20 bytes of UTF-8.
 * @returns `undefined` where the text could not be read back, or not after JPEG of quality 75, as in
 * pictures that are too flat.
 * @throws {InputError} If the text is empty or too long, or the picture has fewer pixels than 256 × 256.
 *
 * @example
 * ```ts
 * import { embedWatermark, readWatermark } from "@x/ddpm";
 *
 * const rgba = Uint8ClampedArray.from({ length: 4 * 256 * 256 }, (_, i) =>
 *   i % 4 === 3 ? 255 : 128 + 99 * Math.sin(i / 9 + (i >> 10) ** 2));
 * const marked = embedWatermark({ width: 256, height: 256, rgba }, "by ddpm");
 * console.log(marked && readWatermark(marked)); // by ddpm
 * ```
 */
export function embedWatermark(picture: Picture, text: string): Picture | undefined {
  checkWatermark(text, picture);
  const { width, height, rgba } = picture, bits = encode(text)!;
  const spread = spreadOf(width, height)!, { columns, each, order, signs } = spread;
  const change = new Float64Array(width * height), marked = { width, height, rgba: rgba.slice() };
  for (let round = 0; round < ROUNDS; round++) {
    const levels = measure(lumaOf(marked), width, spread);
    if (levels.every((level, bit) => Math.abs(missing(level, bits[bit])) < NEAR)) break;
    for (let bit = 0; bit < BITS; bit++) {
      const amount = missing(levels[bit], bits[bit]) * STEP;
      for (let k = bit * each; k < (bit + 1) * each; k++) {
        const from = cornerOf(order[k], columns, width),
          pattern = patterns[order[k] % PLACES.length];
        for (let i = 0; i < pattern.length; i++) {
          change[from + (i >> 3) * width + (i & 7)] += signs[k] * amount * pattern[i];
        }
      }
    }
    // All three alike, so that the luma changes by as much.
    for (let i = 0; i < rgba.length; i++) {
      if (i % 4 < 3) marked.rgba[i] = rgba[i] + change[i >> 2];
    }
  }
  // In flat pictures JPEG rounds all of it away.
  const luma = lumaOf(marked);
  const isKept = CHECKED.every((coarseness) =>
    decode(measure(luma, width, spread, coarseness).map(bitOf)) === text
  );
  return isKept ? marked : undefined;
}

/**
 * The text of the watermark in a picture; `undefined` where there is none. One in 4 billion pictures
 * without a watermark seems to have one.
 */
export function readWatermark(picture: Picture): string | undefined {
  const spread = spreadOf(picture.width, picture.height);
  if (!spread) return undefined;
  const levels = measure(lumaOf(picture), picture.width, spread);
  return decode(levels.map(bitOf));
}
