/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): random
 * numbers as a pure function of a key and a counter. The WGSL twin is in `wgsl/philox.ts`; both
 * give the same integers, and the same normals up to the rounding of their last bits.
 *
 * Counters: (element / 4, image, step, stream) under the key (seed, seed / 2³²).
 *
 * @module
 */

import type { Shape } from "../shape.ts";

/** What to draw from: standard normals, uniforms in (0, 1), or integers in [0, below). */
export type Distribution = "normal" | "uniform" | "integer";

/** Attributes of a draw. */
export interface RandomAttributes {
  readonly distribution: Distribution;
  /** `[images, ...]`: the first axis counts images, the others number an image's elements. */
  readonly shape: Shape;
  /** Keeps draws for different purposes apart. */
  readonly stream: number;
  /** Exclusive bound of integers. */
  readonly below: number;
}

/** Multipliers and key increments of the generator. */
export const PHILOX = { m0: 0xd2511f53, m1: 0xcd9e8d57, w0: 0x9e3779b9, w1: 0xbb67ae85 } as const;

/** High 32 bits of the 64-bit product of two 32-bit integers. */
function mulHigh(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const low = (middle & 0xffff) + a0 * b1;
  return (a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(low / 0x10000)) >>> 0;
}

/**
 * Ten rounds over a counter of four 32-bit words.
 *
 * @param counter Four words; only their low 32 bits count.
 * @param key Two words.
 * @param out Receives four unsigned words.
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array,
): void {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(PHILOX.m0, c0 >>> 0), low0 = Math.imul(PHILOX.m0, c0);
    const high1 = mulHigh(PHILOX.m1, c2 >>> 0), low1 = Math.imul(PHILOX.m1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + PHILOX.w0) | 0;
    k1 = (k1 + PHILOX.w1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** A word as a number in (0, 1), never its ends. */
export const toUniform = (word: number): number => (word + 0.5) / 4294967296;

/** A word as an integer in [0, below). */
export const toInteger = (word: number, below: number): number => mulHigh(word, below);

/** Two words as two independent standard normals (Box and Muller 1958). */
export function toNormals(word0: number, word1: number): [number, number] {
  const radius = Math.sqrt(-2 * Math.log(toUniform(word0)));
  const angle = 2 * Math.PI * toUniform(word1);
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}

/** The four standard normals of a block of words. */
export const fourNormals = (words: Uint32Array): number[] => [
  ...toNormals(words[0], words[1]),
  ...toNormals(words[2], words[3]),
];

/** A seed as two words. */
export function seedWords(seed: number): Int32Array<ArrayBuffer> {
  return new Int32Array([seed | 0, Math.floor(seed / 4294967296) | 0]);
}
