import { assertEquals, assertThrows } from "@std/assert";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { averagePoolSame, maxPool } from "../../src/gpu/ops/pool.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { Random } from "../random.ts";

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`means of what is around a pixel do not count what is beyond the image, on ${kind}`, async () => {
    using device = await open();
    for (const [n, h, w, c, size] of [[3, 5, 7, 5, 3], [1, 8, 4, 8, 5], [2, 1, 6, 1, 3]]) {
      const random = new Random(`${[n, h, w, c]}`), x = input("x", [n, h, w, c]);
      const values = Float32Array.from({ length: n * h * w * c }, () => random.between(-1, 1));
      const reach = (size - 1) / 2,
        expected = values.map((_, i) => {
          const channel = i % c, pixel = Math.floor(i / c), image = Math.floor(pixel / (h * w));
          const found: number[] = [];
          for (let y = 0; y < h; y++) {
            for (let at = 0; at < w; at++) {
              const isNear = Math.abs(y - Math.floor(pixel / w) % h) <= reach &&
                Math.abs(at - pixel % w) <= reach;
              if (isNear) found.push(values[((image * h + y) * w + at) * c + channel]);
            }
          }
          return found.reduce((a, b) => a + b) / found.length;
        });
      using program = await device.compile(makeGraph({ y: averagePoolSame(x, size) }));
      program.buffers.x.write(values);
      program.run();
      assertClose(await program.buffers.y.read(), expected, 1e-6, `${[n, h, w, c, size]}`);
    }
  });
}

Deno.test("of equal values the first one has the gradient of a maximum", () => {
  const x = input("x", [1, 3, 3, 1]);
  const gradient = (
    values: number[],
    y: typeof x,
  ) => [...interpret(makeGraph({ g: grad(sum(y), [x])[0] }), { x: Float64Array.from(values) }).g];
  const all = maxPool(x, 3, { stride: 1, padding: [0, 0, 0, 0] });
  assertEquals(gradient([0, 0, 0, 0, 0, 0, 0, 0, 0], all), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
  assertEquals(gradient([0, 0, 0, 0, 7, 7, 0, 7, 0], all), [0, 0, 0, 0, 1, 0, 0, 0, 0]);
  const padded = maxPool(x, 3, { stride: 1, padding: [1, 1, 1, 1] });
  assertEquals(
    gradient([-9, 0, 0, 0, -1, 0, 0, 0, 0].map((v) => v - 5), padded)
      .reduce((a, b) => a + b),
    9,
  );
});

Deno.test("windows that are smaller than their steps, or within what is padded, are refused", () => {
  const x = input("x", [1, 8, 8, 1]);
  assertThrows(
    () => maxPool(x, 2, { stride: 3, padding: [0, 0, 0, 0] }),
    RangeError,
    "Cannot pool",
  );
  assertThrows(
    () => maxPool(x, 2, { stride: 1, padding: [2, 0, 0, 0] }),
    RangeError,
    "Cannot pool",
  );
  assertThrows(
    () => maxPool(input("x", [8, 8]), 2, { stride: 1, padding: [0, 0, 0, 0] }),
    RangeError,
    "[batch, height, width, channels]",
  );
});
