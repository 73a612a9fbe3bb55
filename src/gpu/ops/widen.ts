/**
 * 16-bit floats that lie two in a 32-bit word, and tensors of 32 bits made of them. A word holds
 * numbers that are half the array apart, so that widening them reads and writes in order.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Tensor } from "../tensor.ts";
import { concat } from "./concat.ts";
import { map } from "./map.ts";
import { slice } from "./view.ts";

/** IEEE's half precision, or the upper half of a 32-bit float. */
export type HalfType = "f16" | "bf16";

/** Words that so many numbers take. */
export const wordsOf = (length: number): number => Math.ceil(length / 2);

/** The words of numbers that are given as their 16 bits each. */
export function packHalves(bits: Uint16Array): Int32Array<ArrayBuffer> {
  const words = new Int32Array(wordsOf(bits.length));
  putHalves(words, bits.length, 0, bits);
  return words;
}

/** Puts some of `length` numbers, from one on, given as their 16 bits each, into their words. */
export function putHalves(
  words: Int32Array,
  length: number,
  first: number,
  bits: Uint16Array,
): void {
  const all = new Uint16Array(words.buffer, words.byteOffset, 2 * words.length);
  const low = Math.max(0, Math.min(bits.length, wordsOf(length) - first));
  for (let i = 0, to = 2 * first; i < low; i++, to += 2) all[to] = bits[i];
  const start = 2 * (first + low - wordsOf(length)) + 1;
  for (let i = low, to = start; i < bits.length; i++, to += 2) all[to] = bits[i];
}

/** `f32` `[length]`, the numbers in words `i32` `[wordsOf(length)]`. */
export function widen(words: Tensor, length: number, type: HalfType): Tensor {
  const [low, high] = type === "f16" ? [e.f16Low, e.f16High] : [e.bf16Low, e.bf16High];
  const rest = length - words.shape[0];
  const parts = [map([words], low), ...(rest ? [map([slice(words, 0, 0, rest)], high)] : [])];
  return concat(parts, 0);
}
