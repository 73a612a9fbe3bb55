import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { openBatches } from "../../src/data/batches.ts";
import { ImageOrder } from "../../src/data/dataset.ts";
import { latentDataset, latentScaling } from "../../src/data/latents.ts";
import { InputError } from "../../src/errors.ts";
import { Random } from "../random.ts";

const count = 500, shape = [2, 1, 3], random = new Random("latents");
const mean = Float32Array.from({ length: count * 6 }, () => 2 + random.between(-3, 3));
const logVariance = Float32Array.from({ length: count * 6 }, () => random.between(-3, 1));
const labels = Array.from({ length: count }, (_, i) => i % 7);
const info = { name: "some", count, labels };

/** One epoch of batches of three, from a place on. */
async function epoch(
  seed: number,
  first = 0,
  parts: Partial<{ logVariance: Float32Array<ArrayBuffer> }> = { logVariance },
) {
  const scale = { scalingFactor: latentScaling({ shape, mean, ...parts }), shiftFactor: 2 };
  const order = new ImageOrder(count, seed), imageAt = (place: number) => order.at(place);
  const data = latentDataset(info, { shape, mean, ...parts }, scale);
  using batches = openBatches(data, { size: 5, seed, imageAt });
  const images: number[] = [], indices: number[] = [];
  for (let at = first; at < first + count; at += 5) {
    const batch = await batches.at(at);
    images.push(...batch.images);
    indices.push(...batch.indices);
    assertEquals([...batch.labels], [...batch.indices].map((i) => labels[i]));
  }
  return { images, indices, scale };
}

Deno.test("latents that are drawn have the deviation 1, and are those of their pictures", async () => {
  const { images, indices, scale } = await epoch(3);
  const average = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
  const center = average(images), deviation = average(images.map((x) => (x - center) ** 2)) ** 0.5;
  assertAlmostEquals(deviation, 1, 0.03);
  // What is left, without the mean of its picture, is a standard normal.
  const normals = images.map((x, k) => {
    const at = indices[Math.floor(k / 6)] * 6 + k % 6;
    return (x / scale.scalingFactor + 2 - mean[at]) / Math.exp(logVariance[at] / 2);
  });
  assertAlmostEquals(average(normals), 0, 0.06);
  assertAlmostEquals(average(normals.map((z) => z * z)), 1, 0.08);
  assertAlmostEquals(average(normals.slice(1).map((z, i) => z * normals[i])), 0, 0.06);
});

Deno.test("every epoch draws anew, by the seed and the place alone", async () => {
  const [first, again, second, other] = [
    ...[await epoch(3), await epoch(3), await epoch(3, count), await epoch(4)],
  ];
  assertEquals(again.images, first.images);
  const of = ({ images, indices }: typeof first) => {
    const at = indices.indexOf(17);
    return images.slice(6 * at, 6 * at + 6);
  };
  for (const drawn of [second, other]) assert(of(first).every((x, i) => x !== of(drawn)[i]));
});

Deno.test("latents without variance are what they are", async () => {
  const { images, indices, scale } = await epoch(1, 0, {});
  const expected = indices.flatMap((index) =>
    [...mean.subarray(6 * index, 6 * index + 6)].map((z) =>
      Math.fround((z - 2) * scale.scalingFactor)
    )
  );
  assertEquals(images, expected);
});

Deno.test("as many latents as pictures are wanted", () => {
  const scale = { scalingFactor: 1, shiftFactor: 0 };
  assertThrows(
    () => latentDataset({ name: "few", count: 3 }, { shape, mean }, scale),
    InputError,
    "Cannot use latents of few: 3 of them are 18 numbers, not 3000",
  );
  assertEquals(latentScaling({ shape, mean: new Float32Array(6) }), Infinity);
});
