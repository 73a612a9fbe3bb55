import { assert, assertAlmostEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { frechetDistance } from "../../src/evaluate/frechet_distance.ts";
import { features, gaussianOf, golden, mixedRows } from "./fixture.ts";

Deno.test("distances are those of pytorch-fid, of singular covariances too", async () => {
  for (const [pair, expected] of Object.entries(golden.frechet)) {
    const [a, b] = pair.split(",").map((name) => gaussianOf(features(name)));
    const found = await frechetDistance(a, b), traces = expected.trace_1 + expected.trace_2;
    for (const other of [expected.distance, expected.scipy_sqrtm]) {
      assertAlmostEquals(found, other, 1e-8 * traces, pair);
    }
  }
});

Deno.test("the distance is that of the formula where covariances commute", async () => {
  const diagonal = (values: readonly number[]) =>
    Float64Array.from({ length: 9 }, (_, i) => i % 4 ? 0 : values[i / 4]);
  const a = { mean: new Float64Array([1, 2, 3]), covariance: diagonal([1, 4, 0]) };
  const b = { mean: new Float64Array([1, 0, 4]), covariance: diagonal([9, 0.25, 2]) };
  const expected = 4 + 1 + (1 - 3) ** 2 + (2 - 0.5) ** 2 + 2;
  assertAlmostEquals(await frechetDistance(a, b), expected, 1e-13);
});

Deno.test("distances are symmetric, nought only to oneself, and unmoved by rotations", async () => {
  const [a, b] = ["a", "b"].map((seed) => mixedRows(seed, 200, 70)), fit = gaussianOf;
  const distance = await frechetDistance(fit(a), fit(b));
  assert(distance > 0.01);
  assertAlmostEquals(await frechetDistance(fit(b), fit(a)), distance, 1e-11);
  assertAlmostEquals(await frechetDistance(fit(a), fit(a)), 0, 1e-11);
  const turn = (rows: typeof a) => {
    const data = Float64Array.from(rows.data), [c, s] = [Math.cos(1), Math.sin(1)];
    for (let i = 0; i < data.length; i += 70) {
      [data[i], data[i + 5]] = [c * data[i] - s * data[i + 5], s * data[i] + c * data[i + 5]];
    }
    return { ...rows, data };
  };
  assertAlmostEquals(await frechetDistance(fit(turn(a)), fit(turn(b))), distance, 1e-11);
});

Deno.test("features of other widths are refused, and a signal ends the work", async () => {
  const [a, b] = [2, 3].map((width) => gaussianOf(mixedRows("x", 9, width)));
  await assertRejects(
    () => frechetDistance(a, b),
    InputError,
    "of width 2 with features of width 3",
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => frechetDistance(a, a, { signal }), Error, "enough");
});
