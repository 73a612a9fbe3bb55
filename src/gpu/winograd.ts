/**
 * Minimal filtering: m outputs of a filter of 3 taps from m + 2 multiplications (Winograd 1980;
 * Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016), in two dimensions
 * m × m outputs from (m + 2)² instead of 9 m².
 *
 * @module
 */

/** Rows of numbers. */
export type Matrix = readonly (readonly number[])[];

/** Y = Aᵀ [(G g) ⊙ (Bᵀ d)] for a filter g and m + 2 inputs d. */
export interface Filtering {
  /** `m × (m + 2)`: outputs from products. */
  readonly at: Matrix;
  /** `(m + 2) × 3`: filters. */
  readonly g: Matrix;
  /** `(m + 2) × (m + 2)`: inputs. */
  readonly bt: Matrix;
}

/** The matrix with rows and columns exchanged. */
export const transposed = (m: Matrix): Matrix => m[0].map((_, j) => m.map((row) => row[j]));

/** Coefficients of ∏ (x - root), the constant one first. */
const fromRoots = (roots: readonly number[]): number[] =>
  roots.reduce<number[]>(
    (c, root) => [...c, 0].map((_, i) => (i ? c[i - 1] : 0) - root * (c[i] ?? 0)),
    [1],
  );

/** The construction of Cook and Toom from m + 1 points and infinity. */
export function filtering(m: number, points: readonly number[]): Filtering {
  const others = (j: number) => points.filter((_, i) => i !== j);
  const scales = points.map((p, j) => others(j).reduce((product, q) => product * (p - q), 1));
  return {
    at: Array.from({ length: m }, (_, i) => [...points.map((p) => p ** i), i === m - 1 ? 1 : 0]),
    g: [...points.map((p, j) => [0, 1, 2].map((k) => p ** k / scales[j])), [0, 0, 1]],
    bt: [...points.map((_, j) => [...fromRoots(others(j)), 0]), fromRoots(points)],
  };
}

/** F(4 × 4, 3 × 3): a quarter of the multiplications, errors of 1e-6 to 1e-5. */
export const F4: Filtering = filtering(4, [0, 1, -1, 2, -2]);

/**
 * How to compute y = T x with as few operations as rows and columns in pairs allow: points +p and -p
 * make rows that agree but for signs, and columns likewise.
 *
 * @param T What is computed with: sums, differences, products with constants.
 */
export function applyMatrix<V>(
  matrix: Matrix,
  x: readonly V[],
  T: {
    add(a: V, b: V): V;
    sub(a: V, b: V): V;
    /** sum + c · x, or c · x alone. */
    madd(sum: V | undefined, c: number, x: V): V;
    zero(): V;
  },
): V[] {
  const columns = transposed(matrix);
  for (let j = 0; j + 1 < columns.length; j++) {
    const a = columns[j], b = columns[j + 1];
    const isPair = a.every((v, i) => Math.abs(v) === Math.abs(b[i])) &&
      a.some((v, i) => v !== b[i]) && a.filter((v) => v).length > 2;
    if (!isPair) continue;
    // Sum and difference of the two, each used by the rows where it is what the signs ask for.
    const both = matrix.map((row) =>
      row.map((v, k) =>
        k === j ? (v === row[j + 1] ? v : 0) : k === j + 1 ? (v === row[j] ? 0 : -v) : v
      )
    );
    const sum = T.add(x[j], x[j + 1]), difference = T.sub(x[j], x[j + 1]);
    return applyMatrix(both, x.map((v, k) => k === j ? sum : k === j + 1 ? difference : v), T);
  }
  const dot = (row: readonly number[], uses: (j: number) => boolean): V => {
    const used = row.map((_, j) => j).filter((j) => row[j] !== 0 && uses(j));
    // A coefficient of one first: it needs no multiplication.
    used.sort((a, b) => Number(row[b] === 1) - Number(row[a] === 1));
    return used.reduce<V | undefined>((sum, j) => T.madd(sum, row[j], x[j]), undefined) ?? T.zero();
  };
  const y: V[] = [];
  for (let i = 0; i < matrix.length; i++) {
    const a = matrix[i], b = matrix[i + 1];
    const isMirrored = b && a.every((v, j) => Math.abs(v) === Math.abs(b[j])) &&
      a.some((v, j) => v && v === b[j]) && a.some((v, j) => v && v === -b[j]);
    if (isMirrored) {
      const even = dot(a, (j) => a[j] === b[j]), odd = dot(a, (j) => a[j] !== b[j]);
      y.push(T.add(even, odd), T.sub(even, odd));
      i++;
    } else y.push(dot(a, () => true));
  }
  return y;
}
