/**
 * How surely a classifier sees classes in pictures, and how many of them.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Rows } from "./rows.ts";
import { probabilitiesOf } from "./softmax.ts";

/** A score of a set in parts. */
export interface InceptionScore {
  /** The mean over the parts, from 1 to the number of classes. */
  readonly mean: number;
  /** The standard deviation over the parts, that with the divisor n. */
  readonly std: number;
  /** How many parts. */
  readonly splits: number;
}

/**
 * The score of Salimans et al. 2016: exp of the mean divergence of the classes of an image from those
 * of all. It is the Inception score if the classifier is Inception-v3; with another one, its numbers
 * are on a scale of their own.
 *
 * @param logits What the classifier gives, a row for each image. The parts are what comes first, next,
 * and so on, so that images in the order of their classes must be shuffled before.
 * @param splits How many parts. @default {10}
 * @throws {InputError} If there are fewer images than parts.
 *
 * @example
 * ```ts
 * import { inceptionScore } from "@x/ddpm/evaluate";
 *
 * const logits = { count: 2, width: 2, data: new Float32Array([9, -9, -9, 9]) };
 * console.log(inceptionScore(logits, 1).mean); // almost 2
 * ```
 */
export function inceptionScore(logits: Rows, splits = 10): InceptionScore {
  const { count, width } = logits;
  if (count < splits) {
    throw new InputError(
      `Cannot take a score of ${count} images in ${splits} parts: there must be one in each`,
    );
  }
  const scores: number[] = [], p = new Float64Array(width);
  for (let k = 0; k < splits; k++) {
    // Of a remainder, the last images are in no part, as elsewhere.
    const size = Math.floor(count / splits), all = new Float64Array(width);
    let negativeEntropy = 0;
    for (let i = k * size; i < (k + 1) * size; i++) {
      probabilitiesOf(logits, i, p);
      for (let c = 0; c < width; c++) {
        all[c] += p[c] / size;
        if (p[c] > 0) negativeEntropy += p[c] * Math.log(p[c]) / size;
      }
    }
    const cross = all.reduce((sum, q) => sum + (q > 0 ? q * Math.log(q) : 0), 0);
    scores.push(Math.exp(negativeEntropy - cross));
  }
  const mean = scores.reduce((sum, x) => sum + x, 0) / splits;
  const variance = scores.reduce((sum, x) => sum + (x - mean) ** 2, 0) / splits;
  return { mean, std: Math.sqrt(variance), splits };
}
