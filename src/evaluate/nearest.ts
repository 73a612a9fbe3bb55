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

/** Looks for the nearest points of some rows, while points come one set after the other. */
export class NearestSearch {
  readonly #rows: Rows;
  readonly #found: Nearest;
  #seen = 0;

  /**
   * A search of which no point is known yet.
   *
   * @param rows Whose neighbours are looked for.
   * @param k How many of each.
   */
  constructor(rows: Rows, k: number) {
    this.#rows = rows;
    const squares = new Float64Array(rows.count * k).fill(Infinity);
    this.#found = { k, squares, indices: new Int32Array(rows.count * k).fill(-1) };
  }

  /**
   * Takes further points, whose numbers follow those before. Where they are the rows themselves, none
   * is near to itself.
   *
   * @throws The signal's reason, if it is aborted.
   */
  async add(points: Rows, work: Work = {}): Promise<void> {
    const isSame = points === this.#rows, before = this.#seen;
    const options = { ...work, kind: "distance", isHalf: isSame } as const;
    await forEachTile(this.#rows, points, options, ({ rows, columns, values }) => {
      const [first, end] = rows, [left, right] = columns;
      for (let i = first; i < end; i++) {
        const from = (i - first) * TILE - left, last = isSame ? Math.min(right, i) : right;
        for (let j = left; j < last; j++) {
          this.#see(i, before + j, values[from + j]);
          // Half of the pairs of a set tell of the others.
          if (isSame) this.#see(j, before + i, values[from + j]);
        }
      }
    });
    this.#seen += points.count;
  }

  /** Takes a point at some distance of row `i`; those as far come in the order of their numbers. */
  #see(i: number, point: number, square: number): void {
    const { k, squares, indices } = this.#found, start = i * k, last = start + k - 1;
    if (!(square < squares[last])) return;
    let at = last;
    for (; at > start && squares[at - 1] > square; at--) {
      squares[at] = squares[at - 1];
      indices[at] = indices[at - 1];
    }
    squares[at] = square;
    indices[at] = point;
  }

  /**
   * What was found.
   *
   * @throws {InputError} If there were fewer than k points that are not the row itself.
   */
  found(): Nearest {
    const { k, indices } = this.#found;
    if (!indices.includes(-1)) return this.#found;
    throw new InputError(
      `Cannot find the ${k} nearest of ${this.#seen} images: there are too few`,
    );
  }
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
  const search = new NearestSearch(rows, k);
  await search.add(points, work);
  return search.found();
}
