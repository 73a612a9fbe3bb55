/**
 * What becomes of numbers that are none: clipping would hide them in an image.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { map } from "../gpu/ops/map.ts";
import type { Tensor } from "../gpu/tensor.ts";

/** What is written in place of what follows from NaN or infinity. */
const BROKEN = 3e38;

/** Squares of means of an estimate beyond this lead nowhere. */
const HEALTHY = 1e30;

/** The values, or what stands for NaN where means of what they follow from are none. */
export const guarded = (values: Tensor, means: Tensor): Tensor =>
  map([values, means], (x, m) => e.select(e.less(e.mul(m, m), HEALTHY), x, BROKEN));

/** @throws {Error} If there is NaN or infinity, or what {@linkcode guarded} wrote in its place. */
export function checkNumbers(
  values: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>,
  what: string,
): Float32Array<ArrayBuffer> {
  if (values.every((value) => Math.abs(value) < BROKEN / 10)) {
    return values as Float32Array<ArrayBuffer>;
  }
  throw new Error(
    `Cannot ${what}: the network predicts what is no number (NaN, or infinite); its weights are ` +
      "damaged, its training diverged, or the noise levels are not those it knows",
  );
}
