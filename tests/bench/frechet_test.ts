import { assert, assertAlmostEquals } from "@std/assert";
import { fitGaussian, frechetDistance, squareRoot } from "../../bench/frechet.ts";
import { assertClose } from "../close.ts";
import { Random } from "../random.ts";

/** Rows whose columns are mixtures of others. */
function rows(seed: string, count: number, width: number): Float64Array {
  const random = new Random(seed), all = new Float64Array(count * width);
  for (let r = 0; r < count; r++) {
    let last = 0;
    for (let i = 0; i < width; i++) all[r * width + i] = last = 0.6 * last + random.between(-1, 1);
  }
  return all;
}

Deno.test("means and covariances are those of the rows", () => {
  const { mean, covariance } = fitGaussian(new Float64Array([1, 2, 3, 6, 5, 10]), 2);
  assertClose(mean, [3, 6], 1e-12);
  assertClose(covariance.flatMap((row) => [...row]), [4, 8, 8, 16], 1e-12);
});

Deno.test("the square of a square root is the matrix, of full rank or not", () => {
  for (const count of [40, 6]) {
    const { covariance } = fitGaussian(rows("root", count, 12), 12), root = squareRoot(covariance);
    const square = root.flatMap((row) =>
      root.map((_, j) => row.reduce((sum, x, k) => sum + x * root[k][j], 0))
    );
    assertClose(square, covariance.flatMap((row) => [...row]), 1e-10);
    root.forEach((row, i) => row.forEach((x, j) => assertAlmostEquals(x, root[j][i], 1e-10)));
  }
});

Deno.test("the distance is that of the formula where covariances commute", () => {
  const diagonal = (values: readonly number[]) =>
    values.map((x, i) => new Float64Array(values.length).fill(x, i, i + 1));
  const a = { mean: new Float64Array([1, 2, 3]), covariance: diagonal([1, 4, 0]) };
  const b = { mean: new Float64Array([1, 0, 4]), covariance: diagonal([9, 0.25, 2]) };
  assertAlmostEquals(frechetDistance(a, b), 4 + 1 + (1 - 3) ** 2 + (2 - 0.5) ** 2 + 2, 1e-9);
});

Deno.test("distances are symmetric, nought only to oneself, and unmoved by rotations", () => {
  const [a, b] = ["a", "b"].map((seed) => rows(seed, 200, 8)),
    fit = (x: Float64Array) => fitGaussian(x, 8);
  const distance = frechetDistance(fit(a), fit(b));
  assert(distance > 0.01);
  assertAlmostEquals(frechetDistance(fit(b), fit(a)), distance, 1e-9);
  assertAlmostEquals(frechetDistance(fit(a), fit(a)), 0, 1e-9);
  const turn = (x: Float64Array) => {
    const out = x.slice(), [c, s] = [Math.cos(1), Math.sin(1)];
    for (let i = 0; i < x.length; i += 8) {
      [out[i], out[i + 5]] = [c * x[i] - s * x[i + 5], s * x[i] + c * x[i + 5]];
    }
    return out;
  };
  assertAlmostEquals(frechetDistance(fit(turn(a)), fit(turn(b))), distance, 1e-9);
});
