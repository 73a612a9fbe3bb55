/**
 * The distance of two sets of features as if both were normally distributed.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Gaussian } from "./moments.ts";
import { forEachTile, TILE, type Work } from "./rows.ts";
import { symmetricEigen } from "./symmetric_eigen.ts";

/**
 * The Fréchet distance, squared as usual (Fréchet 1957; Heusel et al. 2017):
 * |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½). In the features of Inception-v3 it is the FID; in others it
 * has no such name. Covariances may be singular; what rounding makes negative counts as 0.
 *
 * @throws {InputError} If the features are of different widths, or not finite.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { frechetDistance } from "@x/ddpm/evaluate";
 *
 * const a = { mean: new Float64Array([1, 2]), covariance: new Float64Array([1, 0, 0, 4]) };
 * const b = { mean: new Float64Array([1, 0]), covariance: new Float64Array([9, 0, 0, 4]) };
 * console.log(await frechetDistance(a, b)); // 4 + (1 - 3)²
 * ```
 */
export async function frechetDistance(a: Gaussian, b: Gaussian, work: Work = {}): Promise<number> {
  const width = a.mean.length;
  if (b.mean.length !== width) {
    throw new InputError(
      `Cannot compare features of width ${width} with features of width ${b.mean.length}: they are ` +
        "of different networks",
    );
  }
  const factor = await rootFactor(a.covariance, work);
  const { values } = await symmetricEigen(
    await conjugate(factor, b.covariance, width, work),
    work,
  );
  let distance = 0;
  for (let i = 0; i < width; i++) {
    distance += (a.mean[i] - b.mean[i]) ** 2;
    distance += a.covariance[i * width + i] + b.covariance[i * width + i];
  }
  return distance - 2 * values.reduce((sum, x) => sum + Math.sqrt(Math.max(x, 0)), 0);
}

/**
 * Rows F with Fᵀ F = Σ: eigenvectors times the roots of eigenvalues. The eigenvalues of F Σ₂ Fᵀ are
 * those of Σ₁^½ Σ₂ Σ₁^½, and of Σ₁ Σ₂, with less to multiply.
 */
async function rootFactor(
  covariance: Float64Array,
  work: Work,
): Promise<Float64Array<ArrayBuffer>> {
  const { values, vectors } = await symmetricEigen(covariance, { ...work, wantsVectors: true });
  const width = values.length, rows = vectors!;
  for (let k = 0; k < width; k++) {
    const root = Math.sqrt(Math.max(values[k], 0));
    for (let i = k * width; i < (k + 1) * width; i++) rows[i] *= root;
  }
  return rows;
}

/** F S Fᵀ of rows F and a symmetric matrix S, below the diagonal and on it. */
async function conjugate(
  factor: Float64Array<ArrayBuffer>,
  symmetric: Float64Array<ArrayBuffer>,
  n: number,
  work: Work,
): Promise<Float64Array<ArrayBuffer>> {
  const half = await multiplyRows(factor, symmetric, n, { ...work, isHalf: false });
  return await multiplyRows(half, factor, n, { ...work, isHalf: true });
}

/** A Bᵀ: inner products of rows, all of them or those up to the diagonal. */
async function multiplyRows(
  a: Float64Array<ArrayBuffer>,
  b: Float64Array<ArrayBuffer>,
  n: number,
  options: Work & { readonly isHalf: boolean },
): Promise<Float64Array<ArrayBuffer>> {
  const out = new Float64Array(n * n),
    [left, right] = [a, b].map((data) => ({
      ...{ count: n, width: n, data },
    }));
  await forEachTile(left, right, { ...options, kind: "product" }, ({ rows, columns, values }) => {
    for (let i = rows[0]; i < rows[1]; i++) {
      const from = (i - rows[0]) * TILE, [first, end] = columns;
      out.set(values.subarray(from, from + end - first), i * n + first);
    }
  });
  return out;
}
