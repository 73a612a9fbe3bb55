import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { grad } from "../../src/gpu/grad.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { add, mul, square } from "../../src/gpu/ops/map.ts";
import { gather } from "../../src/gpu/ops/gather.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { slice } from "../../src/gpu/ops/view.ts";
import { input } from "../../src/gpu/tensor.ts";
import { openCpuAs, openGpu } from "../device.ts";

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

Deno.test("a CPU reaches every element of a tensor of more than 2 GiB", async () => {
  using device = await openCpuAs(2, {});
  const rows = 2 ** 27 + 100, last = rows - 7;
  const x = input("x", [rows, 4]), index = input("index", [4], "i32");
  // Only what is read and written takes memory of the machine.
  const outputs = { end: mul(slice(x, 0, last, 7), 2), found: gather(x, index) };
  using program = await device.compile(makeGraph(outputs));
  const { buffers } = program, values = Array.from({ length: 28 }, (_, i) => i + 1);
  assertEquals(buffers.x.length, 2 ** 29 + 400);
  buffers.x.write([-1, -2, -3, -4]);
  buffers.x.write([5, 6, 7, 8], 2 ** 29);
  buffers.x.write(values, 4 * last);
  buffers.index.write([last, 0, 2 ** 27, rows - 1]);
  program.run();
  assertEquals([...await buffers.end.read()], values.map((v) => 2 * v));
  assertEquals([...await buffers.found.read()], [
    ...[1, 2, 3, 4],
    ...[-1, -2, -3, -4],
    ...[5, 6, 7, 8],
    ...[25, 26, 27, 28],
  ]);
  assertEquals([...await buffers.x.read(2 ** 29 - 2, 4)], [0, 0, 5, 6]);
});
