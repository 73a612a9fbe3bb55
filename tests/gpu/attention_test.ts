import { assert, assertEquals } from "@std/assert";
import { grad } from "../../src/gpu/grad.ts";
import { type Graph, makeGraph, nodesOf } from "../../src/gpu/graph.ts";
import { attention } from "../../src/gpu/ops/attention.ts";
import { mul } from "../../src/gpu/ops/map.ts";
import { splitHeads } from "../../src/gpu/ops/matmul.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import type { Shape } from "../../src/shape.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { simplify } from "../../src/gpu/compile/simplify.ts";
import { input, type Tensor } from "../../src/gpu/tensor.ts";
import type { GpuDevice } from "../../src/gpu/wgsl/device.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpuAs } from "../device.ts";
import { Random } from "../random.ts";

/** Queries, keys and values by their lengths, and the width of the two former and of the latter. */
interface Sizes {
  readonly batch?: Shape;
  readonly queries: number;
  readonly keys: number;
  readonly size: number;
  readonly width: number;
}

/** Attention and, of a weighted sum of it, the gradients. */
function build({ batch = [], queries, keys, size, width }: Sizes): Graph {
  const shapes = { q: [queries, size], k: [keys, size], v: [keys, width] };
  const inputs = Object.entries(shapes).map(([name, s]) => input(name, [...batch, ...s]));
  const [q, k, v] = inputs, y = attention(q, k, v), weights = input("weights", y.shape);
  const [dq, dk, dv] = grad(sum(mul(y, weights)), inputs);
  return makeGraph({ y, dq, dk, dv });
}

/** A GPU as they really are, as far as rules can tell, that goes one way wherever it can. */
const openReal = (preferred?: string): Promise<GpuDevice> =>
  openGpuAs({
    ...{ subgroup: 0, lanes: 64, steps: 8, workgroups: 1024 },
    ...(preferred === undefined ? {} : { preferred }),
  });

/** What a program gives for random numbers, and which operations it consists of. */
async function run(device: GpuDevice, graph: Graph) {
  using program = await device.compile(graph);
  const random = new Random("attention");
  for (const name of ["q", "k", "v", "weights"].filter((name) => program.buffers[name])) {
    const { length } = program.buffers[name];
    program.buffers[name].write(Float32Array.from({ length }, () => random.between(-1, 1)));
  }
  program.run();
  const values: Record<string, ArrayLike<number>> = {};
  for (const name of Object.keys(graph.outputs)) values[name] = await program.buffers[name].read();
  return { values, stages: program.describe().stages };
}

const isFused = ({ op }: { op: string }) => op.startsWith("fused_attention");

const odd: Sizes = { batch: [2], queries: 70, keys: 9, size: 35, width: 67 };
const long: Sizes = { queries: 5, keys: 6, size: 512, width: 4 };

for (
  const [what, name, sizes] of [
    ["odd rows of several vectors, large tiles", "fused, 128x128", odd],
    ["odd rows of several vectors, small tiles", "fused, 32x32", odd],
    ["rows as long as can be", "fused, 32x32", long],
  ] as const
) {
  Deno.test(`attention without a matrix of scores is the same as by products: ${what}`, async () => {
    using whole = await openReal(name);
    using parts = await openReal("none of them");
    const actual = await run(whole, build(sizes)), expected = await run(parts, build(sizes));
    assertEquals([actual, expected].map(({ stages }) => stages.filter(isFused).length), [3, 0]);
    for (const [name, values] of Object.entries(expected.values)) {
      assertClose(actual.values[name], values, 1e-5, name);
    }
  });
}

Deno.test("attention has more workgroups than a grid has on an axis", async () => {
  const batch = 65537, shape = [batch, 1, 1];
  const [q, k, v] = ["q", "k", "v"].map((name) => input(name, shape));
  using device = await openReal("fused, 32x32");
  const { values: { y }, stages } = await run(device, makeGraph({ y: attention(q, k, v) }));
  assert(stages.some(isFused));
  // With one key, the result is the value.
  const random = new Random("attention");
  for (let i = 0; i < 2 * batch; i++) random.between(-1, 1);
  assertClose(y, Float32Array.from({ length: batch }, () => random.between(-1, 1)), 1e-6);
});

Deno.test("attention over a long sequence takes no memory for scores on a GPU", async () => {
  using device = await openReal();
  const length = 4096, graph = build({ queries: length, keys: length, size: 64, width: 64 });
  const { temporary } = device.plan(graph);
  assert(temporary < 4 * length ** 2 / 10, `${temporary} bytes`);
  using cpu = await openCpuAs(1, {});
  assert(cpu.plan(graph).temporary >= 4 * length ** 2);
});

Deno.test("attention is products where scores are few, and on software adapters", async () => {
  const stagesOf = async (device: GpuDevice, length: number) => {
    const sizes = { queries: length, keys: length, size: 4, width: 4 };
    using program = await device.compile(build(sizes));
    return program.describe().stages.filter(isFused).length;
  };
  using real = await openReal();
  using software = await openGpuAs({ subgroup: 8 });
  const found = [await stagesOf(real, 16), await stagesOf(real, 17), await stagesOf(software, 17)];
  assertEquals(found, [0, 3, 0]);
  // But where nothing else is possible.
  using small = await openGpuAs({ subgroup: 8, maxBindingElements: 64 * 64 });
  assertEquals(await stagesOf(small, 65), 3);
});

Deno.test("by products, gradients of attention compute no probabilities again", () => {
  const x = input("x", [2, 6, 12]);
  const [q, k, v] = ["q", "k", "v"].map((name) => splitHeads(mul(x, input(name, [12])), 3));
  const by = nodesOf(makeGraph({ q, k, v })).filter(({ shape }) => shape.length === 1);
  const count = (outputs: Tensor[]) => {
    const graph = makeGraph(Object.fromEntries(outputs.map((x, i) => [`${i}`, x])));
    const names = nodesOf(simplify(graph)).map(({ op }) => op.name);
    return ["matmul", "softmax"].map((name) => names.filter((n) => n === name).length);
  };
  const y = attention(q, k, v);
  assertEquals(count([y]), [2, 1]);
  assertEquals(count([y, ...grad(sum(mul(y, y)), by)]), [6, 1]);
});

for (const [what, changes] of [["narrow", {}], ["wide", { pair: 2 }]] as const) {
  Deno.test(`attention on a CPU without a matrix of scores is the same, in ${what} vectors`, async () => {
    using device = await openCpuAs(2, changes);
    // Several tiles of keys, queries that no block divides, heads in the middle, odd widths.
    for (
      const [heads, queries, keys, size] of [[8, 1024, 77, 40], [8, 301, 301, 35], [
        3,
        467,
        390,
        64,
      ]]
    ) {
      const [q, k, v] = [queries, keys, keys].map((length, i) =>
        input("qkv"[i], [1, length, heads * size])
      );
      const [a, b, c] = [q, k, v].map((x) => splitHeads(x, heads));
      // With gradients products are shared: alone, attention is a kernel.
      const graph = makeGraph({ y: attention(a, b, c) });
      const { temporary } = device.plan(graph);
      assert(temporary < 4 * heads * queries * keys, `${temporary} bytes`);
      using program = await device.compile(graph);
      assertEquals(program.describe().stages.map(({ op }) => op), ["attention"]);
      const random = new Random("attention"), data: Record<string, Float32Array<ArrayBuffer>> = {};
      for (const name of "qkv") {
        const { length } = program.buffers[name];
        program.buffers[name].write(
          data[name] = Float32Array.from({ length }, () => random.between(-3, 3)),
        );
      }
      program.run();
      assertClose(await program.buffers.y.read(), interpret(graph, data).y, 1e-5);
    }
  });
}
