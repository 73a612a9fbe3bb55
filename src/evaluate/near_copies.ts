/**
 * How many pictures are copies of what a model learnt from.
 *
 * @module
 */

import { type Nearest, nearest } from "./nearest.ts";
import type { Rows, Work } from "./rows.ts";

/** The training images next to samples. */
export interface Neighbors {
  /** The distance of each sample to the nearest training image. */
  readonly distances: Float64Array<ArrayBuffer>;
  /** Which one that is. */
  readonly indices: Int32Array<ArrayBuffer>;
  /** The share of the samples that are near copies. */
  readonly nearCopies: number;
}

/** A near copy is this much nearer to one training image than to the next nearest. */
const COPY_RATIO = 1 / 3;

/**
 * Looks for the training images that samples are nearest to. A sample counts as a near copy of one if
 * that is less than a third as far as the second nearest, or no distance at all (Yoon et al. 2023).
 * Of images that a model never saw, some do by chance: their share is what to compare with.
 *
 * @param samples Features or pixels of samples.
 * @param training The same of what the model learnt from, two at the least.
 * @throws {InputError} If there are fewer.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { findNeighbors } from "@x/ddpm/evaluate";
 *
 * const training = { count: 3, width: 1, data: new Float32Array([0, 1, 5]) };
 * const samples = { count: 2, width: 1, data: new Float32Array([0.5, 5.1]) };
 * console.log((await findNeighbors(samples, training)).nearCopies); // 0.5
 * ```
 */
export async function findNeighbors(
  samples: Rows,
  training: Rows,
  work: Work = {},
): Promise<Neighbors> {
  return neighborsOf(await nearest(samples, training, 2, work));
}

/** The same, of the two nearest training images of each sample. */
export function neighborsOf({ k, squares, indices }: Nearest): Neighbors {
  const count = squares.length / k;
  let copies = 0;
  for (let i = 0; i < count; i++) {
    const square = squares[k * i];
    if (square === 0 || square < COPY_RATIO ** 2 * squares[k * i + 1]) copies++;
  }
  return {
    distances: Float64Array.from({ length: count }, (_, i) => Math.sqrt(squares[k * i])),
    indices: Int32Array.from({ length: count }, (_, i) => indices[k * i]),
    nearCopies: copies / count,
  };
}
