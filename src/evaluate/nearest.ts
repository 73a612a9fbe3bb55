/**
 * The nearest of a set of points, exactly.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { forEachTile, type Rows, TILE, type Work } from "./rows.ts";

/** The nearest points of each of several points. */
export interface Nearest {
  /** How many of each. */
  readonly k: number;
  /** `[count, k]`, squares of distances from the nearest on. */
  readonly squares: Float64Array<ArrayBuffer>;
  /** `[count, k]`, which points they are; of those as far, the first. */
  readonly indices: Int32Array<ArrayBuffer>;
}

/**
 * The k points that are nearest to each of some rows; where the rows are the points themselves, no
 * point counts as near to itself.
 *
 * @throws {InputError} If there are fewer than k others.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { nearest } from "@x/ddpm/evaluate";
 *
 * const points = { count: 3, width: 1, data: new Float32Array([0, 1, 5]) };
 * const { indices, squares } = await nearest(points, points, 1);
 * console.log(indices, squares); // 1, 0, 1 and 1, 1, 16
 * ```
 */
export async function nearest(
  rows: Rows,
  points: Rows,
  k: number,
  work: Work = {},
): Promise<Nearest> {
  const isSame = rows === points, others = points.count - Number(isSame);
  if (others < k) {
    throw new InputError(
      `Cannot find the ${k} nearest of ${points.count} images: there must be ${
        k + Number(isSame)
      } at ` +
        "the least",
    );
  }
  const squares = new Float64Array(rows.count * k).fill(Infinity);
  const indices = new Int32Array(rows.count * k).fill(-1);
  await forEachTile(rows, points, { ...work, kind: "distance" }, (tile) => {
    const [first, end] = tile.rows, [left, right] = tile.columns;
    for (let i = first; i < end; i++) {
      const from = (i - first) * TILE - left, start = i * k, last = start + k - 1;
      for (let j = left; j < right; j++) {
        const square = tile.values[from + j];
        if (!(square < squares[last]) || isSame && i === j) continue;
        let at = last;
        for (; at > start && squares[at - 1] > square; at--) {
          squares[at] = squares[at - 1];
          indices[at] = indices[at - 1];
        }
        squares[at] = square;
        indices[at] = j;
      }
    }
  });
  return { k, squares, indices };
}
