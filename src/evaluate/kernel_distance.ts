/**
 * The kernel distance of two sets of features, which in those of Inception-v3 is the KID.
 *
 * @module
 */

import { ImageOrder } from "../data/dataset.ts";
import { InputError } from "../errors.ts";
import { forEachTile, type Rows, TILE, type Work } from "./rows.ts";

/** A kernel distance, a mean over subsets. */
export interface KernelDistance {
  /** The mean over the subsets. Unbiased: sets of the same distribution have 0, and often less. */
  readonly mean: number;
  /** The standard deviation of the subsets' distances, that with the divisor n, as torch-fidelity's. */
  readonly std: number;
  /**
   * The standard error of the mean, from the spread of the subsets by the jackknife that leaves many
   * out (Shao and Wu 1989): for m of n images, their standard deviation times √(m / (n - m)).
   */
  readonly standardError: number;
  /** How many subsets there were. */
  readonly subsets: number;
  /** Images of each subset. */
  readonly subsetSize: number;
}

/** Settings of {@linkcode kernelDistance}. */
export interface KernelDistanceOptions extends Work {
  /** How many subsets are drawn. @default {100} */
  readonly subsets?: number;
  /**
   * Images of each, drawn without replacement from either set; half of the smaller set at the most.
   * @default {1000}
   */
  readonly subsetSize?: number;
  /** Of the drawing. @default {0} */
  readonly seed?: number;
}

/**
 * The squared maximum mean discrepancy of the kernel (x·y / width + 1)³, estimated without bias on
 * subsets (Bińkowski et al. 2018).
 *
 * @throws {InputError} If the features are of different widths, or of fewer than four images.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { kernelDistance } from "@x/ddpm/evaluate";
 *
 * const rows = (from: number) => ({
 *   ...{ count: 20, width: 2 },
 *   data: Float32Array.from({ length: 40 }, (_, i) => from + Math.sin(7 * i)),
 * });
 * const { mean, standardError } = await kernelDistance(rows(0), rows(1), { subsets: 10 });
 * console.log(mean > 2 * standardError); // true
 * ```
 */
export async function kernelDistance(
  a: Rows,
  b: Rows,
  { subsets = 100, subsetSize = 1000, seed = 0, signal, onProgress }: KernelDistanceOptions = {},
): Promise<KernelDistance> {
  const least = Math.min(a.count, b.count), size = Math.min(subsetSize, least >> 1);
  if (size < 2) {
    throw new InputError(
      `Cannot take the kernel distance of ${a.count} and ${b.count} images: four are the least`,
    );
  }
  const [orderA, orderB] = [a, b].map(({ count }, k) => new ImageOrder(count, 2 * seed + k));
  const found: number[] = [];
  for (let k = 0; k < subsets; k++) {
    onProgress?.(k, subsets);
    // A subset is the beginning of an order of all: no image is in it twice.
    found.push(
      await squaredDiscrepancy(
        pickRows(a, Array.from({ length: size }, (_, i) => orderA.at(k * a.count + i))),
        pickRows(b, Array.from({ length: size }, (_, i) => orderB.at(k * b.count + i))),
        signal ? { signal } : {},
      ),
    );
  }
  const mean = found.reduce((sum, x) => sum + x, 0) / subsets;
  const squares = found.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return {
    ...{ mean, std: Math.sqrt(squares / subsets), subsets, subsetSize: size },
    standardError: Math.sqrt(squares / Math.max(1, subsets - 1) * size / (least - size)),
  };
}

/** Some rows. */
export function pickRows({ width, data }: Rows, indices: readonly number[]): Rows {
  const length = indices.length * width;
  const picked = data instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
  indices.forEach((index, i) => {
    picked.set(data.subarray(index * width, (index + 1) * width), i * width);
  });
  return { count: indices.length, width, data: picked };
}

/**
 * The unbiased estimate of the squared maximum mean discrepancy of two whole sets, of whatever sizes
 * (Gretton et al. 2012, lemma 6).
 *
 * @throws {InputError} If the features are of different widths.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { squaredDiscrepancy } from "@x/ddpm/evaluate";
 *
 * const rows = { count: 3, width: 1, data: new Float32Array([0, 1, 2]) };
 * console.log(await squaredDiscrepancy(rows, rows)); // below 0: there is no bias
 * ```
 */
export async function squaredDiscrepancy(a: Rows, b: Rows, work: Work = {}): Promise<number> {
  if (a.width !== b.width) {
    throw new InputError(
      `Cannot compare features of width ${a.width} with features of width ${b.width}: they are of ` +
        "different networks",
    );
  }
  const within = async (rows: Rows) =>
    await sumOfKernels(rows, rows, true, work) / (rows.count * (rows.count - 1) / 2);
  return await within(a) + await within(b) -
    2 * await sumOfKernels(a, b, false, work) / (a.count * b.count);
}

/** The sum of the kernel over all pairs, or over those below the diagonal. */
async function sumOfKernels(a: Rows, b: Rows, isHalf: boolean, work: Work): Promise<number> {
  let sum = 0;
  await forEachTile(a, b, { ...work, kind: "product", isHalf }, ({ rows, columns, values }) => {
    for (let i = rows[0]; i < rows[1]; i++) {
      const end = isHalf ? Math.min(columns[1], i) : columns[1], from = (i - rows[0]) * TILE;
      for (let j = columns[0]; j < end; j++) {
        const base = values[from + j - columns[0]] / a.width + 1;
        sum += base * base * base;
      }
    }
  });
  return sum;
}
