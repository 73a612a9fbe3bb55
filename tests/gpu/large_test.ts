import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { grad } from "../../src/gpu/grad.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { add, mul, square } from "../../src/gpu/ops/map.ts";
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

Deno.test("convolutions of more pixels than a GPU counts tiles along an axis", async () => {
  using device = await openGpu();
  const shape = [2, 730, 365, 1], size = 2 * 730 * 365;
  const x = input("x", shape), w = input("w", [1, 1, 1, 1]), g = input("g", shape);
  const y = conv2d(x, w, undefined, same(1)), [dx] = grad(sum(mul(y, g)), [x]);
  using program = await device.compile(makeGraph({ y, dx }));
  const groups = program.describe().stages.flatMap(({ kernels }) => kernels.map((k) => k.groups));
  assert(Math.max(...groups) > 65_535);
  const { buffers } = program;
  buffers.w.write(Float32Array.of(3));
  buffers.x.write(Float32Array.from({ length: size }, (_, i) => i % 1001));
  buffers.g.write(Float32Array.from({ length: size }, (_, i) => i % 1003));
  program.run();
  const check = (values: ArrayLike<number>, period: number) =>
    assert(Array.from(values).every((value, i) => value === 3 * (i % period)));
  check(await buffers.y.read(), 1001);
  check(await buffers.dx.read(), 1003);
});
