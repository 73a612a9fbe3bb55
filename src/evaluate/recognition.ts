/**
 * What a classifier sees in pictures.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Rows } from "./rows.ts";
import { probabilitiesOf } from "./softmax.ts";

/** Which classes a classifier sees. */
export interface Recognition {
  /** The share of the images whose likeliest class has a probability above `confidence`. */
  readonly recognised: number;
  /** That probability. */
  readonly confidence: number;
  /** The share of the images whose likeliest class is the one that was asked for, where one was. */
  readonly asked?: number;
  /** Of each class, the share of the images of which it is the likeliest. */
  readonly classes: readonly number[];
}

/**
 * Counts the classes that a classifier sees.
 *
 * @param logits A row for each image.
 * @param labels The class that was asked for of each image.
 * @param confidence From what probability on an image counts as recognised. @default {0.9}
 * @throws {InputError} If a label is no class of the classifier.
 *
 * @example
 * ```ts
 * import { recognize } from "@x/ddpm/evaluate";
 *
 * const logits = { count: 2, width: 2, data: new Float32Array([9, -9, 0.1, 0]) };
 * console.log(recognize(logits, [0, 1])); // recognised 0.5, asked 0.5, classes 1, 0
 * ```
 */
export function recognize(
  logits: Rows,
  labels?: ArrayLike<number>,
  confidence = 0.9,
): Recognition {
  const { count, width } = logits, p = new Float64Array(width), seen = new Float64Array(width);
  let recognised = 0, asked = 0;
  for (let i = 0; i < count; i++) {
    if (labels && !(labels[i] >= 0 && labels[i] < width)) {
      throw new InputError(
        `Cannot look for the class ${labels[i]}: the classifier has classes 0 to ${width - 1}`,
      );
    }
    probabilitiesOf(logits, i, p);
    const likeliest = p.reduce((best, x, c) => x > p[best] ? c : best, 0);
    seen[likeliest]++;
    if (p[likeliest] > confidence) recognised++;
    if (labels?.[i] === likeliest) asked++;
  }
  return {
    ...{ recognised: recognised / count, confidence, classes: [...seen.map((n) => n / count)] },
    ...(labels ? { asked: asked / count } : {}),
  };
}
