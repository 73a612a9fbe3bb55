import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { symmetricEigen } from "../../src/evaluate/symmetric_eigen.ts";
import { assertClose } from "../close.ts";
import { fixture, gaussianOf, mixedRows } from "./fixture.ts";

const { matrix64, eigenvalues64 } = JSON.parse(
  await Deno.readTextFile(fixture("eigenvalues.json")),
) as { matrix64: number[][]; eigenvalues64: number[] };

/** Checks that vectors are orthonormal, and that with the values they make the matrix. */
async function checkDecomposition(matrix: Float64Array, tolerance = 1e-13) {
  const { values, vectors } = await symmetricEigen(matrix, { wantsVectors: true });
  const n = values.length, row = (k: number) => vectors!.subarray(k * n, (k + 1) * n);
  const product = new Float64Array(n * n), gram = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let i = 0; i < n; i++) {
      gram[k * n + i] = row(k).reduce((sum, x, j) => sum + x * row(i)[j], 0);
      for (let j = 0; j < n; j++) product[i * n + j] += values[k] * row(k)[i] * row(k)[j];
    }
  }
  assertClose(product, matrix, tolerance, "the product");
  assertClose(
    gram,
    gram.map((_, i) => Number(i % (n + 1) === 0)),
    tolerance,
    "products of vectors",
  );
  return values.toSorted();
}

Deno.test("eigenvalues of 64 rows are NumPy's, and the vectors theirs", async () => {
  const matrix = Float64Array.from(matrix64.flat());
  assertClose((await symmetricEigen(matrix)).values.toSorted(), eigenvalues64, 1e-14);
  assertClose(await checkDecomposition(matrix), eigenvalues64, 1e-14);
});

Deno.test("matrices that are singular, have equal eigenvalues, or are diagonal are decomposed", async () => {
  const { covariance } = gaussianOf(mixedRows("few", 9, 20)),
    values = await checkDecomposition(covariance);
  assert(values.filter((x) => Math.abs(x) < 1e-14 * values[19]).length >= 12, String(values));
  const identity = Float64Array.from({ length: 81 }, (_, i) => Number(i % 10 === 0));
  assertEquals([...await checkDecomposition(identity)], new Array(9).fill(1));
  const ones = new Float64Array(36).fill(2);
  assertClose(await checkDecomposition(ones), [0, 0, 0, 0, 0, 12], 1e-14);
  assertEquals([...await checkDecomposition(new Float64Array(16))], [0, 0, 0, 0]);
  const diagonal = Float64Array.from({ length: 25 }, (_, i) => i % 6 ? 0 : i - 10);
  assertEquals([...await checkDecomposition(diagonal)], [-10, -4, 2, 8, 14]);
  assertEquals([...(await symmetricEigen(Float64Array.of(3))).values], [3]);
  assertEquals((await symmetricEigen(new Float64Array())).values.length, 0);
  // One that has two parts which know nothing of each other.
  const parts = Float64Array.from([2, 1, 0, 0, 1, 2, 0, 0, 0, 0, 5, 2, 0, 0, 2, 5]);
  assertClose(await checkDecomposition(parts), [1, 3, 3, 7], 1e-14);
});

Deno.test("the scale of a matrix does not matter", async () => {
  const { covariance } = gaussianOf(mixedRows("scale", 30, 8));
  const { values } = await symmetricEigen(covariance);
  for (const scale of [1e-250, 1e250]) {
    const other = await symmetricEigen(covariance.map((x) => x * scale));
    assertClose(other.values.map((x) => x / scale), values, 1e-14);
  }
});

Deno.test("what is not finite is refused, and a signal ends the work", async () => {
  await assertRejects(
    () => symmetricEigen(Float64Array.of(1, 0, NaN, 1)),
    InputError,
    "not finite",
  );
  const matrix = Float64Array.from(matrix64.flat()),
    signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => symmetricEigen(matrix, { signal }), Error, "enough");
});
