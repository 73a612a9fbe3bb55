import { assert, assertEquals } from "@std/assert";
import type { Device } from "../../src/gpu/device.ts";
import { type Graph, makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { add, gelu, mul, silu } from "../../src/gpu/ops/map.ts";
import { linear } from "../../src/gpu/ops/matmul.ts";
import { upsampleNearest } from "../../src/gpu/ops/resample.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { slice } from "../../src/gpu/ops/view.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input, type Tensor } from "../../src/gpu/tensor.ts";
import { sizeOf } from "../../src/shape.ts";
import { assertClose } from "../close.ts";
import { openCpuAs } from "../device.ts";
import { Random } from "../random.ts";

/** Runs a graph twice and compares it with the reference; returns its kernels and temporary bytes. */
async function check(device: Device, graph: Graph, what: string) {
  using program = await device.compile(graph);
  const random = new Random("in place"), data: Record<string, Float64Array<ArrayBuffer>> = {};
  for (const [name, buffer] of Object.entries(program.buffers)) {
    if (name in graph.outputs) continue;
    data[name] = Float64Array.from(
      { length: buffer.length },
      () => Math.fround(random.between(-1, 1)),
    );
    buffer.write(data[name]);
  }
  program.run(2);
  const expected = interpret(graph, data);
  for (const name of Object.keys(graph.outputs)) {
    assertClose(await program.buffers[name].read(), expected[name], 3e-5, `${what}: ${name}`);
  }
  return { dispatches: program.dispatches, temporary: device.plan(graph).temporary };
}

const weights = (name: string, size: number, from: number, to: number) =>
  input(name, [size, size, from, to]);

/** Bytes of a tensor. */
const bytes = ({ shape }: Tensor) => 4 * sizeOf(shape);

for (const pair of [1, 2] as const) {
  Deno.test(`the CPU adds residuals in the memory of a summand, by vectors of ${pair}`, async () => {
    using device = await openCpuAs(3, { pair });
    for (
      const [n, size, channels] of [[1, 9, 16], [2, 8, 32], [1, 7, 12], [2, 5, 5], [1, 33, 16]]
    ) {
      const x = input("x", [n, size, size, channels]), what = `${n} of ${size}, ${channels}`;
      const layer = (h: Tensor, k: number) =>
        conv2d(h, weights(`w${k}`, 3, channels, channels), input(`b${k}`, [channels]), same(3));
      const block = (h: Tensor, k: number) => add(h, layer(silu(layer(h, k)), k + 1));
      const r = block(block(block(layer(x, 0), 1), 3), 5);
      const graph = makeGraph({ y: layer(r, 7), total: sum(r, [1, 2]) });
      const { temporary } = await check(device, graph, what);
      // The sum, and what is between two convolutions; weights of the one that runs.
      const packed = 4 * 36 * (Math.ceil(channels / 16) * 16) ** 2 + 36 * 64 + 512;
      assert(temporary < 2.1 * bytes(x) + packed, `${what}: ${temporary} bytes`);
      // A summand that somebody reads later stays.
      const h = layer(x, 0), later = add(h, layer(silu(h), 1));
      await check(device, makeGraph({ y: mul(layer(later, 2), h), z: sum(h, [1, 2]) }), what);
      // As does one that is read at other places, too.
      const g = layer(x, 0);
      await check(device, makeGraph({ y: layer(add(g, layer(g, 1)), 2) }), what);
    }
  });

  Deno.test(`the CPU gates products in place, by vectors of ${pair}`, async () => {
    using device = await openCpuAs(2, { pair });
    for (const [rows, from, inner] of [[50, 16, 64], [7, 9, 13]]) {
      const x = input("x", [rows, from]);
      const half = (k: number) => linear(x, input(`w${k}`, [inner, from]), input(`b${k}`, [inner]));
      const gated = mul(half(0), gelu(half(1)));
      const y = linear(gated, input("w2", [from, inner]));
      const { temporary } = await check(device, makeGraph({ y }), `${rows} rows`);
      const packed = 4 * from * Math.ceil(inner / 16) * 16 * 2 + 1024;
      assert(temporary < bytes(gated) + packed, `${temporary} bytes`);
    }
  });

  Deno.test(`convolutions on the CPU repeat pixels on the way, by vectors of ${pair}`, async () => {
    using device = await openCpuAs(2, { pair });
    for (const channels of [8, 12, 16]) {
      for (const [size, factor, stride] of [[3, 2, 1], [1, 2, 1], [3, 3, 1], [3, 2, 2]]) {
        const x = input("x", [2, 3, 5, channels]), w = weights("w", size, channels, 16);
        const h = conv2d(x, weights("v", 1, channels, channels), undefined, same(1));
        const window = { ...same(size), stride },
          what = `${channels}, ${size}, ${factor}, ${stride}`;
        const y = conv2d(upsampleNearest(h, factor), w, input("b", [16]), window);
        const { dispatches } = await check(device, makeGraph({ y }), what);
        // Two to pack weights.
        assertEquals(dispatches, 4, what);
        // Beginning among those that are alike, and without the last ones.
        const padding = [-1, 1, -1, 1] as const;
        const cut = conv2d(upsampleNearest(h, factor), w, undefined, { padding, stride });
        await check(device, makeGraph({ cut }), what);
        const part = slice(slice(upsampleNearest(h, factor), 1, 0, 5), 2, 0, 9);
        await check(device, makeGraph({ y: conv2d(part, w, undefined, window) }), what);
      }
    }
  });
}

Deno.test("the CPU makes narrow images of wide ones in their memory", async () => {
  for (const threads of [1, 3]) {
    using device = await openCpuAs(threads, {});
    for (const [height, width, from, to] of [[211, 203, 8, 4], [290, 307, 5, 3]]) {
      const x0 = input("x", [2, height, width, from]), x = silu(x0), total = sum(x, [1, 2]);
      const narrow = conv2d(x, weights("w", 1, from, to), undefined, same(1));
      const y = conv2d(narrow, weights("v", 1, to, 1), undefined, same(1));
      const { temporary } = await check(device, makeGraph({ total, y }), `${from} to ${to}`);
      assert(temporary < 1.06 * bytes(x), `${temporary} bytes`);
    }
  }
});
