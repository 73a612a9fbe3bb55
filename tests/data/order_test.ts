import { assert, assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import { ImageOrder } from "../../src/data/dataset.ts";
import { Random } from "../random.ts";

const epochOf = (order: ImageOrder, count: number, epoch: number) =>
  Array.from({ length: count }, (_, i) => order.at(epoch * count + i));

Deno.test("every epoch is a permutation of the images", () => {
  for (const count of [1, 2, 3, 4, 5, 64, 1001]) {
    const order = new ImageOrder(count, 7), all = Array.from({ length: count }, (_, i) => i);
    for (const epoch of [0, 1, 2, 1000]) {
      assertEquals(epochOf(order, count, epoch).sort((a, b) => a - b), all);
    }
  }
});

Deno.test("epochs and seeds have orders of their own", () => {
  const orders = [0, 1, 2 ** 32].flatMap((seed) => {
    const order = new ImageOrder(50, seed);
    return [0, 1, 2].map((epoch) => epochOf(order, 50, epoch).join());
  });
  assertEquals(new Set(orders).size, 9);
  assertNotEquals(orders[0], Array.from({ length: 50 }, (_, i) => i).join());
});

Deno.test("a place of the sequence holds the same image however one gets there", () => {
  const count = 37, sequential = new ImageOrder(count, 3), jumping = new ImageOrder(count, 3);
  const images = Array.from({ length: 5 * count }, (_, place) => sequential.at(place));
  const random = new Random("places");
  for (let i = 0; i < 200; i++) {
    const place = random.below(images.length);
    assertEquals(jumping.at(place), images[place]);
  }
  assertEquals(new ImageOrder(count, 3).at(100), images[100]);
});

Deno.test("every image is about equally often at every place", () => {
  const count = 4, epochs = 4000, order = new ImageOrder(count, 1);
  const seen = new Float64Array(count * count);
  for (let place = 0; place < epochs * count; place++) {
    seen[place % count * count + order.at(place)] += 1 / epochs;
  }
  for (const share of seen) assertAlmostEquals(share, 1 / count, 0.03);
  assert(seen.some((share) => share !== 1 / count), "it is no fixed pattern");
});
