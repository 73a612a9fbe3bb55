/**
 * Eigenvalues and eigenvectors of symmetric matrices: Householder's reflections make them tridiagonal,
 * the QL algorithm with implicit shifts diagonal (Wilkinson and Reinsch 1971, II/2 and II/4). Work
 * grows with the cube of the width; singular matrices, and equal eigenvalues, are nothing special.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { Breath, type Work } from "./rows.ts";

/** What a symmetric matrix A is made of: A = Σ λ_k v_k v_kᵀ. */
export interface SymmetricEigen {
  /** λ, in no order. */
  readonly values: Float64Array<ArrayBuffer>;
  /** `[n, n]`, a row for each eigenvalue, orthonormal; absent where nobody asked for them. */
  readonly vectors?: Float64Array<ArrayBuffer>;
}

/** Sweeps for an eigenvalue after which something is wrong; two are usual. */
const MAX_SWEEPS = 60;
/** Sweeps of rotations that are kept until eigenvectors are turned, and the columns that turn at a time. */
const KEPT_SWEEPS = 32, PANEL = 64;

/**
 * Decomposes a symmetric matrix, row by row, of which only what is below the diagonal and on it counts.
 *
 * @throws {InputError} If a number is not finite.
 * @throws The signal's reason, if it is aborted.
 */
export async function symmetricEigen(
  matrix: Float64Array,
  { wantsVectors = false, ...work }: Work & { readonly wantsVectors?: boolean } = {},
): Promise<SymmetricEigen> {
  const n = Math.sqrt(matrix.length);
  let scale = 0;
  for (const x of matrix) scale = Math.max(scale, Math.abs(x));
  if (!Number.isFinite(scale)) {
    throw new InputError(
      "Cannot take the eigenvalues of a matrix with numbers that are not finite",
    );
  }
  if (scale === 0) scale = 1;
  // With a largest element of 1, squares neither overflow nor vanish where they count.
  const a = Float64Array.from(matrix, (x) => x / scale), breath = new Breath(work);
  const { diagonal, beside, norms } = await tridiagonalize(a, n, breath);
  const vectors = wantsVectors ? new Float64Array(n * n) : undefined;
  for (let i = 0; vectors && i < n; i++) vectors[i * n + i] = 1;
  await diagonalize(diagonal, beside, vectors, breath);
  if (vectors) await reflectBack(vectors, a, norms, n, breath);
  for (let i = 0; i < n; i++) diagonal[i] *= scale;
  return { values: diagonal, ...(vectors ? { vectors } : {}) };
}

/**
 * Makes row k zero up to its last element but one before the diagonal, from the last row up: by the
 * reflection I - v vᵀ / h. v stays in the row, and h in `norms`, 0 for rows that were so already.
 */
async function tridiagonalize(a: Float64Array, n: number, breath: Breath) {
  const diagonal = new Float64Array(n), beside = new Float64Array(n), norms = new Float64Array(n);
  const p = new Float64Array(n), v = new Float64Array(n);
  for (let k = n - 1; k > 0; k--) {
    await breath.take(n - k, n);
    const row = k * n, last = a[row + k - 1];
    diagonal[k] = a[row + k];
    beside[k - 1] = last;
    let rest = 0;
    for (let i = 0; i < k - 1; i++) rest += a[row + i] * a[row + i];
    if (rest === 0) continue;
    const length = Math.sqrt(rest + last * last) * (last < 0 ? -1 : 1);
    beside[k - 1] = -length;
    a[row + k - 1] = last + length;
    const h = norms[k] = length * (length + last);
    for (let i = 0; i < k; i++) v[i] = a[row + i];
    // p = A v / h of the block above, whose upper half is the mirror of its lower one.
    p.fill(0, 0, k);
    for (let i = 0; i < k; i++) {
      const at = i * n, own = v[i];
      let sum = a[at + i] * own;
      for (let j = 0; j < i; j++) {
        const x = a[at + j];
        sum += x * v[j];
        p[j] += x * own;
      }
      p[i] += sum;
    }
    let along = 0;
    for (let i = 0; i < k; i++) {
      p[i] /= h;
      along += p[i] * v[i];
    }
    along /= 2 * h;
    for (let i = 0; i < k; i++) p[i] -= along * v[i];
    for (let i = 0; i < k; i++) {
      const at = i * n, x = v[i], y = p[i];
      for (let j = 0; j <= i; j++) a[at + j] -= x * p[j] + y * v[j];
    }
  }
  if (n) diagonal[0] = a[0];
  return { diagonal, beside, norms };
}

/** Rotations of neighbouring rows, from the last pair to the first. */
interface Sweep {
  readonly first: number;
  /** Cosines and sines in turns, those of rows `first` and `first + 1` at the end. */
  readonly turns: Float64Array;
}

/** Sweeps of rotations from below drive what is beside the diagonal to nothing, value by value. */
async function diagonalize(
  d: Float64Array,
  e: Float64Array,
  vectors: Float64Array | undefined,
  breath: Breath,
): Promise<void> {
  const n = d.length, kept: Sweep[] = [];
  let size = 0;
  for (let i = 0; i < n; i++) size = Math.max(size, Math.abs(d[i]) + Math.abs(e[i]));
  const small = Number.EPSILON * size;
  for (let first = 0; first < n; first++) {
    for (let sweeps = 0;; sweeps++) {
      let last = first;
      while (last < n - 1 && Math.abs(e[last]) > small) last++;
      if (last === first) break;
      if (sweeps === MAX_SWEEPS) throw new Error("The QL algorithm does not converge");
      await breath.take(first, n);
      const turns = new Float64Array(2 * (last - first));
      sweep(d, e, first, last, turns);
      if (!vectors) continue;
      kept.push({ first, turns });
      if (kept.length === KEPT_SWEEPS) rotate(vectors, n, kept.splice(0));
    }
  }
  if (vectors) rotate(vectors, n, kept);
}

/** One sweep over the part of the matrix between two rows, with the shift of Wilkinson. */
function sweep(
  d: Float64Array,
  e: Float64Array,
  first: number,
  last: number,
  turns: Float64Array,
): void {
  const half = (d[first + 1] - d[first]) / (2 * e[first]);
  const root = Math.sqrt(half * half + 1);
  const shift = d[first] - e[first] / (half + (half < 0 ? -root : root));
  let bulge = d[last] - shift, c = 1, s = 1, moved = 0, at = 0;
  for (let i = last - 1; i >= first; i--) {
    const across = s * e[i], along = c * e[i], length = Math.sqrt(across * across + bulge * bulge);
    e[i + 1] = length;
    if (length === 0) {
      // The matrix falls apart here, which is as good; what is left of the sweep turns nothing.
      d[i + 1] -= moved;
      e[last] = 0;
      for (; at < turns.length; at += 2) turns[at] = 1;
      return;
    }
    s = across / length;
    c = bulge / length;
    const value = d[i + 1] - moved, twist = (d[i] - value) * s + 2 * c * along;
    moved = s * twist;
    d[i + 1] = value + moved;
    bulge = c * twist - along;
    turns[at++] = c;
    turns[at++] = s;
  }
  d[first] -= moved;
  e[first] = bulge;
  e[last] = 0;
}

/** Turns rows, some columns at a time, so that they stay in a cache for all sweeps. */
function rotate(rows: Float64Array, n: number, sweeps: readonly Sweep[]): void {
  for (let left = 0; left < n; left += PANEL) {
    const right = Math.min(left + PANEL, n);
    for (const { first, turns } of sweeps) {
      for (let at = 0, i = first + turns.length / 2 - 1; i >= first; i--) {
        const c = turns[at++], s = turns[at++];
        for (let k = i * n + left, end = i * n + right; k < end; k++) {
          const upper = rows[k], lower = rows[k + n];
          rows[k + n] = s * upper + c * lower;
          rows[k] = c * upper - s * lower;
        }
      }
    }
  }
}

/** Turns eigenvectors of the tridiagonal matrix into those of the matrix that it was made of. */
async function reflectBack(
  vectors: Float64Array,
  reflections: Float64Array,
  norms: Float64Array,
  n: number,
  breath: Breath,
): Promise<void> {
  const GROUP = 16;
  for (let from = 0; from < n; from += GROUP) {
    await breath.take(from, n);
    const to = Math.min(from + GROUP, n);
    for (let k = 1; k < n; k++) {
      if (norms[k] === 0) continue;
      for (let r = from; r < to; r++) {
        const row = r * n, at = k * n;
        let sum = 0;
        for (let i = 0; i < k; i++) sum += vectors[row + i] * reflections[at + i];
        sum /= norms[k];
        for (let i = 0; i < k; i++) vectors[row + i] -= sum * reflections[at + i];
      }
    }
  }
}
