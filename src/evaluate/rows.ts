/**
 * Rows of numbers, features of an image each, and passes over all pairs of them in tiles, in double
 * precision and in memory that does not depend on how many there are.
 *
 * @module
 */

import { type PairKind, type Range, TILE, TileComputer } from "./tile_kernels.ts";

export { TILE };

/** Numbers of images, as features and logits are. */
export interface Rows {
  /** How many. */
  readonly count: number;
  /** Numbers a row. */
  readonly width: number;
  /** `[count, width]`. */
  readonly data: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

/** What long computations are told. */
export interface Work {
  /** Stops within a fraction of a second. */
  readonly signal?: AbortSignal;
  /** Is told how much of the work is done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Signals and timers have a turn after so many milliseconds. */
const PAUSE_MS = 50;

/** Is called from time to time: lets signals have their turn, and ends the work if it is to end. */
export class Breath {
  readonly #work: Work;
  #last = performance.now();

  constructor(work: Work) {
    this.#work = work;
  }

  /** @throws The signal's reason, if it is aborted. */
  async take(done: number, total: number): Promise<void> {
    this.#work.signal?.throwIfAborted();
    if (performance.now() - this.#last < PAUSE_MS) return;
    this.#work.onProgress?.(done, total);
    await new Promise((resolve) => setTimeout(resolve));
    this.#work.signal?.throwIfAborted();
    this.#last = performance.now();
  }
}

/** What is computed of pairs of rows. */
export interface PairOptions extends Work {
  /** Their inner product, or their squared distance. */
  readonly kind: PairKind;
  /** Leaves out tiles above the diagonal, for sets of which those are a mirror. @default {false} */
  readonly isHalf?: boolean;
}

/** A tile: `values[(i - first) * TILE + j - firstOther]` belongs to rows i and j. */
export interface Tile {
  /** Rows of the first set, from here to before there. */
  readonly rows: Range;
  /** Rows of the other set. */
  readonly columns: Range;
  /** `[TILE, TILE]`, of which the first rows and columns count. */
  readonly values: Float64Array;
}

/**
 * Computes a number of every pair of a row of `a` and one of `b`, tile by tile.
 *
 * @throws The signal's reason, if it is aborted.
 */
export async function forEachTile(
  a: Rows,
  b: Rows,
  { kind, isHalf = false, ...work }: PairOptions,
  visit: (tile: Tile) => void,
): Promise<void> {
  if (a.width !== b.width) throw new RangeError(`Rows of ${a.width} and ${b.width} do not compare`);
  const tiles = await TileComputer.open(), breath = new Breath(work);
  const part = (first: number, count: number): Range => [first, Math.min(first + TILE, count)];
  for (let i = 0; i < a.count; i += TILE) {
    const rows = part(i, a.count);
    for (let j = 0; j < (isHalf ? i + 1 : b.count); j += TILE) {
      const columns = part(j, b.count);
      await breath.take(i * b.count + j * TILE, a.count * b.count);
      visit({ rows, columns, values: tiles.compute(kind, a, rows, b, columns) });
    }
  }
}
