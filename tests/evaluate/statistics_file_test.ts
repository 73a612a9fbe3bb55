import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  encodeStatistics,
  mergeStatistics,
  readStatistics,
  type Statistics,
} from "../../src/evaluate/statistics_file.ts";
import { concat } from "../../src/formats/bytes.ts";
import { InputError } from "../../src/errors.ts";
import { encodeNpy, encodeNpz, type NpyArray } from "../../src/formats/write_npy.ts";
import { assertClose } from "../close.ts";
import { between, fixture, gaussianOf, mixedRows } from "./fixture.ts";

const read = async (...arrays: NpyArray[]) =>
  await readStatistics(concat([...encodeNpz(arrays)]), "x.npz");

const array = (name: string, shape: readonly number[], ...values: number[]): NpyArray => ({
  ...{ name, shape, values: Float64Array.from(values) },
});
const mu = array("mu", [2], 1, 2), sigma = array("sigma", [2, 2], 2, 1, 1, 3);

Deno.test("statistics that NumPy wrote are read", async () => {
  const found = await readStatistics(await Deno.readFile(fixture("statistics.npz")), "x.npz");
  const { gaussian, count, features, about, logits } = found;
  assertEquals([count, features!.count, features!.width, about, logits], [
    ...[30, 30, 4, { seed: 3 }, undefined],
  ]);
  assertClose(gaussian.mean, gaussianOf(features!).mean, 1e-13);
  assertClose(gaussian.covariance, gaussianOf(features!).covariance, 1e-13);
});

Deno.test("arrays are written byte by byte as NumPy does", async () => {
  const same = async (name: string, written: Omit<NpyArray, "name">) =>
    assertEquals(encodeNpy({ name, ...written }), await Deno.readFile(fixture(`${name}.npy`)));
  const quarters = Float64Array.from({ length: 6 }, (_, i) => i / 4);
  await same("matrix", { shape: [2, 3], values: quarters });
  await same("single", { shape: [3], values: Int32Array.of(1, 2, 3) });
  await same("text", { shape: [], values: '{"a": "é😀"}' });
  assertThrows(() => encodeNpy({ ...mu, shape: [3] }), RangeError, "Cannot write mu: 3 are not 2");
});

Deno.test("what is written is what is read", async () => {
  const rows = mixedRows("rows", 20, 3), logits = mixedRows("logits", 20, 10);
  const written: Statistics = {
    ...{ gaussian: gaussianOf(rows), count: 20, features: rows, logits },
    ...{ labels: Int32Array.from({ length: 20 }, (_, i) => i % 10), about: { model: "é" } },
  };
  const bytes = concat([...encodeStatistics(written)]);
  assertEquals(await readStatistics(bytes, "x.npz"), written);
  assertEquals(concat([...encodeStatistics(written)]), bytes);
});

Deno.test("parts are put together as the whole", async () => {
  const rows = mixedRows("rows", 60, 3), whole = gaussianOf(rows), cuts = [0, 2, 31, 60];
  const parts = cuts.slice(1).map((end, i) => {
    const features = between(rows, cuts[i], end);
    const labels = Int32Array.from({ length: end - cuts[i] }, (_, k) => k);
    return { gaussian: gaussianOf(features), count: features.count, features, labels };
  });
  const merged = mergeStatistics(parts);
  assertClose(merged.gaussian.mean, whole.mean, 1e-13);
  assertClose(merged.gaussian.covariance, whole.covariance, 1e-13);
  assertEquals([merged.count, merged.features, merged.labels!.length], [60, rows, 60]);
  const [first, ...others] = parts;
  const { features, labels } = mergeStatistics([{ gaussian: first.gaussian, count: 2 }, ...others]);
  assertEquals([features, labels], [undefined, undefined]);
  assertThrows(
    () => mergeStatistics([{ gaussian: first.gaussian }, ...others]),
    InputError,
    "does not tell how many images it is of (count)",
  );
  const other = { gaussian: gaussianOf(mixedRows("x", 9, 4)), count: 9 };
  assertThrows(() => mergeStatistics([first, other]), InputError, "of width 3 and of width 4");
  // Of one, nothing must be known.
  assertEquals(mergeStatistics([{ gaussian: whole }]).count, undefined);
  assertEquals((await read(mu, sigma)).count, undefined);
});

Deno.test("files that are no statistics are refused, with what is wrong", async () => {
  const cases: readonly [NpyArray[], string][] = [
    [[array("arr_0", [1], 1)], "it has no array mu; it has arr_0"],
    [[], "it has no array mu; it has none at all"],
    [[mu], "it has no array sigma"],
    [[mu, array("sigma", [4], 2, 1, 1, 3)], "mu is 2 and sigma 4, not N and NxN"],
    [[mu, array("sigma", [1, 1], 1)], "mu is 2 and sigma 1x1, not N and NxN"],
    [[array("mu", [2], 1, NaN), sigma], "mu has the number NaN"],
    [[mu, array("sigma", [2, 2], 2, 1, 0, 3)], "0 at 1, 0 is 1 at 0, 1"],
    [[mu, array("sigma", [2, 2], 2, 1, 1, -3)], "the variance 1 is -3"],
    [[mu, sigma, array("features", [1, 3], 1, 2, 3)], "features are 1x3, not rows of 2"],
    [[mu, sigma, array("features", [2], 1, 2)], "features are 2, not rows of 2"],
    [
      [mu, sigma, array("count", [], 3), array("features", [1, 2], 1, 2)],
      "it has rows of 1 and 3 images",
    ],
    [[mu, sigma, { name: "about", shape: [], values: "{" }], "is no JSON"],
  ];
  for (const [arrays, message] of cases) {
    await assertRejects(() => read(...arrays), InputError, message);
  }
  await assertRejects(() => readStatistics(new Uint8Array(9), "x.npz"), InputError, "x.npz as zip");
});
