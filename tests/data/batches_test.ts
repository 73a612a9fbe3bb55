import { assertEquals } from "@std/assert";
import { openBatches } from "../../src/data/batches.ts";
import type { Dataset } from "../../src/data/dataset.ts";

/** Images of two pixels: ten times their number, and one more. */
const numbers: Dataset = {
  ...{ name: "numbers", count: 5, shape: [1, 2, 1] },
  read(index, out, offset) {
    out[offset] = 10 * index;
    out[offset + 1] = 10 * index + 1;
  },
};
const later: Dataset = {
  ...numbers,
  async read(index, out, offset) {
    await new Promise((done) => setTimeout(done, 0));
    numbers.read(index, out, offset);
  },
};
const plan = { size: 3, seed: 0, imageAt: (place: number) => place % 5 };

for (const [when, data] of [["at once", numbers], ["later", later]] as const) {
  Deno.test(`a batch holds the images at its places, read ${when}`, async () => {
    using batches = openBatches({ ...data, labels: [5, 6, 7, 8, 9] }, plan);
    for (const place of [0, 3, 1]) {
      const { images, labels, indices: taken } = await batches.at(place);
      const indices = [0, 1, 2].map((i) => (place + i) % 5);
      assertEquals([...taken], indices);
      assertEquals([...images], indices.flatMap((i) => [10 * i, 10 * i + 1]));
      assertEquals([...labels], indices.map((i) => 5 + i));
    }
  });
}

Deno.test("a set that makes its own batches is asked for them, and told when it is over", async () => {
  const told: unknown[] = [];
  const batch = {
    ...{ images: new Float32Array(6), labels: new Int32Array(3), indices: new Uint32Array(3) },
  };
  const own: Dataset = {
    ...numbers,
    batches: (given) => {
      told.push(given);
      return {
        at: (place) => (told.push(place), Promise.resolve(batch)),
        [Symbol.dispose]: () => void told.push("end"),
      };
    },
  };
  {
    using batches = openBatches(own, plan);
    assertEquals(await batches.at(6), batch);
  }
  assertEquals(told, [plan, 6, "end"]);
});
