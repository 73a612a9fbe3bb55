import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { Moments } from "../../src/evaluate/moments.ts";
import { assertClose } from "../close.ts";
import { between, features, gaussianOf, golden, mixedRows } from "./fixture.ts";

Deno.test("means and covariances are those of NumPy, divided by n - 1", () => {
  for (const name of ["a", "b", "s"]) {
    assertClose(gaussianOf(features(name)).mean, golden.mean[name], 1e-12);
  }
  assertClose(gaussianOf(features("a")).covariance, golden.cov.a.flat(), 1e-12);
});

Deno.test("parts of any size put together are the whole", () => {
  const rows = mixedRows("parts", 203, 7),
    whole = gaussianOf(rows),
    cuts = [0, 1, 65, 66, 150, 203];
  const parts = cuts.slice(1).map((end, i) => {
    const moments = new Moments(7);
    moments.add(between(rows, cuts[i], end));
    return moments;
  });
  const merged = new Moments(7);
  for (const part of parts) merged.merge(part);
  merged.merge(new Moments(7));
  assertEquals(merged.count, 203);
  assertClose(merged.gaussian().mean, whole.mean, 1e-13);
  assertClose(merged.gaussian().covariance, whole.covariance, 1e-13);
  const again = new Moments(7);
  for (const [i, end] of cuts.slice(1).entries()) again.add(between(rows, cuts[i], end));
  assertClose(again.gaussian().covariance, whole.covariance, 1e-13);
});

Deno.test("moments go on from what a file holds of them", () => {
  const rows = mixedRows("file", 90, 5), first = gaussianOf(between(rows, 0, 40));
  const moments = Moments.of(first, 40);
  moments.add(between(rows, 40, 90));
  assertClose(moments.gaussian().covariance, gaussianOf(rows).covariance, 1e-13);
});

Deno.test("a large mean takes nothing of the covariance away", () => {
  const rows = mixedRows("far", 100, 3), data = rows.data.map((x) => Math.round(64 * x) / 64);
  const far = data.map((x) => x + 4096);
  const [near, away] = [data, far].map((data) =>
    gaussianOf({ ...rows, data: Float32Array.from(data) })
  );
  assertClose(away.covariance, near.covariance, 1e-11);
  assertAlmostEquals(away.mean[0], near.mean[0] + 4096, 1e-10);
});

Deno.test("a covariance needs two images, and rows of one width", () => {
  const moments = new Moments(2);
  assertThrows(() => moments.gaussian(), InputError, "features of 0 images: two are the least");
  moments.add({ count: 1, width: 2, data: new Float32Array(2) });
  assertThrows(() => moments.gaussian(), InputError, "features of 1 images: two are the least");
  assertThrows(() => moments.merge(new Moments(3)), RangeError, "Rows of 3 are not of 2");
  assertThrows(() => moments.add(mixedRows("x", 2, 3)), RangeError, "Rows of 3 are not of 2");
});
