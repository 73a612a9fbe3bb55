/**
 * The distance of two sets of features as if both were normally distributed (Fréchet 1957; Heusel et
 * al. 2017): |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), in double precision.
 *
 * @module
 */

type Matrix = readonly Float64Array[];

/** Mean and covariance of rows. */
export interface Gaussian {
  readonly mean: Float64Array;
  readonly covariance: Matrix;
}

/** The normal distribution with the moments of `[count, width]` rows. */
export function fitGaussian(rows: Float64Array, width: number): Gaussian {
  const count = rows.length / width, mean = new Float64Array(width);
  rows.forEach((x, i) => mean[i % width] += x / count);
  const covariance = Array.from({ length: width }, () => new Float64Array(width));
  for (let r = 0; r < count; r++) {
    const row = rows.subarray(r * width, (r + 1) * width).map((x, i) => x - mean[i]);
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < width; j++) covariance[i][j] += row[i] * row[j] / (count - 1);
    }
  }
  return { mean, covariance };
}

/** The Fréchet distance, squared as usual. */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  const root = squareRoot(a.covariance);
  const { values } = eigen(multiply(multiply(root, b.covariance), root));
  const cross = values.reduce((sum, x) => sum + Math.sqrt(Math.max(x, 0)), 0);
  const means = a.mean.reduce((sum, x, i) => sum + (x - b.mean[i]) ** 2, 0);
  return means + trace(a.covariance) + trace(b.covariance) - 2 * cross;
}

const trace = (m: Matrix) => m.reduce((sum, row, i) => sum + row[i], 0);

const multiply = (a: Matrix, b: Matrix): Matrix =>
  a.map((row) => row.map((_, j) => row.reduce((sum, x, k) => sum + x * b[k][j], 0)));

/** The symmetric root of a symmetric matrix without negative eigenvalues. */
export function squareRoot(matrix: Matrix): Matrix {
  const { values, vectors } = eigen(matrix), roots = values.map((x) => Math.sqrt(Math.max(x, 0)));
  return vectors.map((row) =>
    row.map((_, j) => row.reduce((sum, x, k) => sum + x * roots[k] * vectors[j][k], 0))
  );
}

/** Eigenvalues and, in columns, eigenvectors of a symmetric matrix, by Jacobi's rotations. */
function eigen(matrix: Matrix): { values: Float64Array; vectors: Matrix } {
  const n = matrix.length, a = matrix.map((row) => row.slice());
  const vectors = a.map((_, i) => new Float64Array(n).fill(1, i, i + 1));
  const size = a.reduce((sum, row) => sum + row.reduce((s, x) => s + x * x, 0), 0);
  for (let sweep = 0; sweep < 60; sweep++) {
    let rest = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rest += a[p][q] ** 2;
    if (rest <= 1e-26 * size) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (a[p][q] === 0) continue;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1), s = t * c;
        for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = rotate(a[k][p], a[k][q], c, s);
        for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = rotate(a[p][k], a[q][k], c, s);
        for (const v of vectors) [v[p], v[q]] = rotate(v[p], v[q], c, s);
      }
    }
  }
  return { values: Float64Array.from(a, (row, i) => row[i]), vectors };
}

const rotate = (x: number, y: number, c: number, s: number) => [c * x - s * y, s * x + c * y];
