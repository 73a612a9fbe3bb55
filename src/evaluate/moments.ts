/**
 * Mean and covariance of features, taken batch by batch in double precision.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Rows } from "./rows.ts";

/** A normal distribution, or what features have in common with one. */
export interface Gaussian {
  /** `[width]`. */
  readonly mean: Float64Array<ArrayBuffer>;
  /** `[width, width]`, symmetric, row by row. */
  readonly covariance: Float64Array<ArrayBuffer>;
}

/** Rows that are taken together. Their differences from the mean stay in a cache. */
const BLOCK = 64;

/**
 * Running mean and covariance. What several processes took of their parts is put together by
 * {@linkcode Moments.merge}, up to rounding as if one had taken all (Chan, Golub and LeVeque 1983).
 *
 * @example
 * ```ts
 * import { Moments } from "@x/ddpm/evaluate";
 *
 * const moments = new Moments(2);
 * moments.add({ count: 3, width: 2, data: new Float32Array([1, 2, 3, 6, 5, 10]) });
 * const { mean, covariance } = moments.gaussian();
 * console.log(mean, covariance); // 3, 6 and 4, 8, 8, 16
 * ```
 */
export class Moments {
  /** Numbers a row. */
  readonly width: number;
  #count = 0;
  readonly #mean: Float64Array<ArrayBuffer>;
  /** Sums of products of what rows differ from their mean; above the diagonal, and on it. */
  readonly #scatter: Float64Array<ArrayBuffer>;

  /**
   * Moments of no rows yet.
   *
   * @param width Numbers a row.
   */
  constructor(width: number) {
    this.width = width;
    this.#mean = new Float64Array(width);
    this.#scatter = new Float64Array(width * width);
  }

  /** The moments that so many rows have. */
  static of({ mean, covariance }: Gaussian, count: number): Moments {
    const moments = new Moments(mean.length);
    moments.#count = count;
    moments.#mean.set(mean);
    for (let i = 0; i < covariance.length; i++) moments.#scatter[i] = covariance[i] * (count - 1);
    return moments;
  }

  /** How many rows were taken. */
  get count(): number {
    return this.#count;
  }

  /**
   * Takes rows.
   *
   * @throws {RangeError} If they are of another width.
   */
  add({ count, width, data }: Rows): void {
    if (width !== this.width) throw new RangeError(`Rows of ${width} are not of ${this.width}`);
    for (let first = 0; first < count; first += BLOCK) {
      const rows = Math.min(BLOCK, count - first), mean = new Float64Array(width);
      // Rows of zeros fill the block up to a multiple of four.
      const block = new Float64Array(4 * Math.ceil(rows / 4) * width);
      block.set(data.subarray(first * width, (first + rows) * width));
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < width; i++) mean[i] += block[r * width + i] / rows;
      }
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < width; i++) block[r * width + i] -= mean[i];
      }
      this.#combine(rows, mean);
      addProducts(this.#scatter, block, width);
    }
  }

  /**
   * Takes what others took.
   *
   * @throws {RangeError} If their rows are of another width.
   */
  merge(other: Moments): void {
    if (other.width !== this.width) {
      throw new RangeError(`Rows of ${other.width} are not of ${this.width}`);
    }
    this.#combine(other.count, other.#mean);
    for (let i = 0; i < this.#scatter.length; i++) this.#scatter[i] += other.#scatter[i];
  }

  /** Moves the mean, and adds what the distance of both means adds to the scatter. */
  #combine(count: number, mean: Float64Array): void {
    const { width } = this, total = this.#count + count;
    if (!count) return;
    const shift = mean.map((x, i) => x - this.#mean[i]), weight = this.#count * count / total;
    for (let i = 0; i < width; i++) {
      const scaled = weight * shift[i];
      for (let j = i; j < width; j++) this.#scatter[i * width + j] += scaled * shift[j];
      this.#mean[i] += shift[i] * count / total;
    }
    this.#count = total;
  }

  /**
   * Mean, and covariance with the divisor n - 1.
   *
   * @throws {InputError} If there are fewer than two rows.
   */
  gaussian(): Gaussian {
    const { width } = this, covariance = new Float64Array(width * width);
    if (this.#count < 2) {
      throw new InputError(
        `Cannot take the covariance of the features of ${this.#count} images: two are the least`,
      );
    }
    for (let i = 0; i < width; i++) {
      for (let j = i; j < width; j++) {
        const value = this.#scatter[i * width + j] / (this.#count - 1);
        covariance[i * width + j] = covariance[j * width + i] = value;
      }
    }
    return { mean: this.#mean.slice(), covariance };
  }
}

/**
 * Adds the products of the columns of a block of rows, four rows at a time: a row of sums stays in a
 * cache until all rows of the block have added to it.
 */
function addProducts(sums: Float64Array, block: Float64Array, width: number): void {
  for (let i = 0; i < width; i++) {
    const row = i * width;
    for (let a = 0; a < block.length; a += 4 * width) {
      const b = a + width, c = b + width, d = c + width;
      const ai = block[a + i], bi = block[b + i], ci = block[c + i], di = block[d + i];
      for (let j = i; j < width; j++) {
        sums[row + j] += ai * block[a + j] + bi * block[b + j] + ci * block[c + j] +
          di * block[d + j];
      }
    }
  }
}
