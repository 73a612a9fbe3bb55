/**
 * Rows of numbers, features of an image each, and passes over all pairs of them in tiles, in double
 * precision and in memory that does not depend on how many there are.
 *
 * @module
 */

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

/** Rows and columns of a tile, a multiple of four. */
export const TILE = 64;
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
  readonly kind: "product" | "distance";
  /** Leaves out tiles above the diagonal, for sets of which those are a mirror. @default {false} */
  readonly isHalf?: boolean;
}

/** A tile: `values[(i - first) * TILE + j - firstOther]` belongs to rows i and j. */
export interface Tile {
  /** Rows of the first set, from here to before there. */
  readonly rows: readonly [first: number, end: number];
  /** Rows of the other set. */
  readonly columns: readonly [first: number, end: number];
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
  const { width } = a, values = new Float64Array(TILE * TILE), breath = new Breath(work);
  const left = new Float64Array(TILE * width), right = new Float64Array(TILE * width);
  const compute = kind === "product" ? products : distances;
  for (let i = 0; i < a.count; i += TILE) {
    const rows = load(left, a, i);
    for (let j = 0; j < (isHalf ? i + 1 : b.count); j += TILE) {
      const columns = load(right, b, j);
      await breath.take(i * b.count + j * TILE, a.count * b.count);
      compute(values, left, right, width, rows[1] - i, columns[1] - j);
      visit({ rows, columns, values });
    }
  }
}

/** Copies rows, in double precision; what is left of the tile is not read. */
function load(tile: Float64Array, { count, width, data }: Rows, first: number) {
  const end = Math.min(first + TILE, count);
  tile.set(data.subarray(first * width, end * width));
  return [first, end] as const;
}

/** Inner products, four rows by two at a time. */
function products(
  out: Float64Array,
  a: Float64Array,
  b: Float64Array,
  width: number,
  rows: number,
  columns: number,
): void {
  for (let i = 0; i < rows; i += 4) {
    const a0 = i * width, a1 = a0 + width, a2 = a1 + width, a3 = a2 + width;
    for (let j = 0; j < columns; j += 2) {
      const b0 = j * width, b1 = b0 + width;
      let p00 = 0, p01 = 0, p10 = 0, p11 = 0, p20 = 0, p21 = 0, p30 = 0, p31 = 0;
      for (let k = 0; k < width; k++) {
        const x = b[b0 + k], y = b[b1 + k];
        const u0 = a[a0 + k], u1 = a[a1 + k], u2 = a[a2 + k], u3 = a[a3 + k];
        p00 += u0 * x;
        p01 += u0 * y;
        p10 += u1 * x;
        p11 += u1 * y;
        p20 += u2 * x;
        p21 += u2 * y;
        p30 += u3 * x;
        p31 += u3 * y;
      }
      const at = i * TILE + j;
      out[at] = p00;
      out[at + 1] = p01;
      out[at + TILE] = p10;
      out[at + TILE + 1] = p11;
      out[at + 2 * TILE] = p20;
      out[at + 2 * TILE + 1] = p21;
      out[at + 3 * TILE] = p30;
      out[at + 3 * TILE + 1] = p31;
    }
  }
}

/**
 * Squared distances as sums of squared differences: by |a|² + |b|² - 2ab, those of near rows would be
 * what rounding left.
 */
function distances(
  out: Float64Array,
  a: Float64Array,
  b: Float64Array,
  width: number,
  rows: number,
  columns: number,
): void {
  for (let i = 0; i < rows; i += 2) {
    const a0 = i * width, a1 = a0 + width;
    for (let j = 0; j < columns; j += 2) {
      const b0 = j * width, b1 = b0 + width;
      let d00 = 0, d01 = 0, d10 = 0, d11 = 0;
      for (let k = 0; k < width; k++) {
        const x = b[b0 + k], y = b[b1 + k], u = a[a0 + k], v = a[a1 + k];
        d00 += (u - x) * (u - x);
        d01 += (u - y) * (u - y);
        d10 += (v - x) * (v - x);
        d11 += (v - y) * (v - y);
      }
      const at = i * TILE + j;
      out[at] = d00;
      out[at + 1] = d01;
      out[at + TILE] = d10;
      out[at + TILE + 1] = d11;
    }
  }
}
