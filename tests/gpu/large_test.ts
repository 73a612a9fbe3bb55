import { assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { add, square } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { input } from "../../src/gpu/tensor.ts";
import { openGpu } from "../device.ts";

Deno.test("sums and elementwise work over more elements than a GPU lets a kernel see", async () => {
  using device = await openGpu();
  Object.assign(device.target, { maxBindingElements: 1000 });
  const x = input("x", [3001]), y = add(x, 1);
  using program = await device.compile(makeGraph({ y, total: sum(square(y)) }));
  program.buffers.x.write(Float32Array.from({ length: 3001 }, (_, i) => i % 7 - 1));
  program.run();
  const values = Array.from({ length: 3001 }, (_, i) => i % 7);
  assertEquals([...await program.buffers.y.read()], values);
  assertEquals([...await program.buffers.total.read()], [values.reduce((s, v) => s + v * v, 0)]);
});
