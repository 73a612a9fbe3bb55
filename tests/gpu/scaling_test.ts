import { assert, assertEquals, assertThrows } from "@std/assert";
import { grad, type Segment } from "../../src/gpu/grad.ts";
import * as e from "../../src/gpu/expression.ts";
import { type Graph, makeGraph, nodesOf } from "../../src/gpu/graph.ts";
import { concat, pack } from "../../src/gpu/ops/concat.ts";
import { add, map, mul, tanh } from "../../src/gpu/ops/map.ts";
import { softmax } from "../../src/gpu/ops/softmax.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { permute, reshape, slice } from "../../src/gpu/ops/view.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { sizeOf } from "../../src/shape.ts";
import { type HostArray, input, inputName, type Tensor } from "../../src/gpu/tensor.ts";
import { type Lifetime, planMemory, planOffsets } from "../../src/gpu/compile/memory_plan.ts";
import type { Stage } from "../../src/gpu/compile/stage.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import {
  type Lowered as LoweredForCpu,
  lowerProgram as lowerForCpu,
} from "../../src/gpu/wasm/lower.ts";
import type { GpuDevice } from "../../src/gpu/wgsl/device.ts";
import {
  type Lowered as LoweredForGpu,
  lowerProgram as lowerForGpu,
} from "../../src/gpu/wgsl/lower.ts";
import { assertClose } from "../close.ts";
import { devices, openGpuAs } from "../device.ts";
import { countWork } from "../work.ts";

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const x = (name = "x") => input(name, [2, 6]);

/** Something elementwise that cannot be simplified. */
const next = (a: Tensor, b: Tensor = a) => map([a, b], (a, b) => e.tanh(e.add(e.mul(a, 0.9), b)));

/** Tensors of which each is made of the last ones. */
function chain(n: number, link: (...last: Tensor[]) => Tensor = next, first = [x()]): Tensor[] {
  const all: Tensor[] = [];
  let before = first;
  for (let i = 0; i < n; i++) {
    const made = link(...before);
    all.push(made);
    before = [made, ...before.slice(0, -1)];
  }
  return all;
}

const last = (tensors: readonly Tensor[]) => tensors[tensors.length - 1];
const total = (tensors: readonly Tensor[]) => tensors.reduce((a, b) => add(a, b));
/** The gradient of the sum of a tensor by all inputs. */
function gradient(y: Tensor, segments: readonly Segment[] = []): Graph {
  const by = nodesOf(makeGraph({ y })).filter((node) => inputName(node) !== undefined);
  return makeGraph(Object.fromEntries(grad(sum(y), by, segments).map((g, i) => [`g${i}`, g])));
}

/** Graphs of about `n` tensors. */
const graphs: Record<string, (n: number) => Graph> = {
  "a chain": (n) => makeGraph({ y: last(chain(n)) }),
  "a chain over many elements": (n) =>
    makeGraph({ y: last(chain(n, next, [input("x", [400, 400])])) }),
  "a chain of which each is summed": (n) =>
    makeGraph({ y: total(chain(n / 3).map((x) => sum(x, [1]))) }),
  "a chain of which each is an output": (n) =>
    makeGraph(Object.fromEntries(chain(n).map((x, i) => [`y${i}`, x]))),
  "a ladder": (n) => makeGraph({ y: last(chain(n, next, [x("a"), x("b")])) }),
  "a ladder of threes": (n) =>
    makeGraph({
      y: last(
        chain(
          n,
          (a, b, c) => map([a, b, c], (a, b, c) => e.tanh(e.add(e.mul(a, b), c))),
          [x("a"), x("b"), x("c")],
        ),
      ),
    }),
  "a ladder of which each is summed": (n) =>
    makeGraph({ y: total(chain(n / 3, next, [x("a"), x("b")]).map((x) => sum(x))) }),
  "halvings": (n) => {
    let low: Tensor = input("low", [2, 1]), high: Tensor = input("high", [2, 1]);
    for (let i = 0; i < n / 5; i++) {
      const middle = map([low, high], (a, b) => e.mul(e.add(a, b), 0.5));
      const known = sum(map([x(`x${i}`), middle], (x, m) => e.less(x, m)), [1]);
      const bounds = [low, high, middle, known];
      const [a, b] = [
        map(bounds, (a, _b, m, n) => e.select(e.less(3, n), a, m)),
        map(bounds, (_a, b, m, n) => e.select(e.less(3, n), m, b)),
      ];
      [low, high] = [a, b];
    }
    return makeGraph({ y: add(low, high) });
  },
  "a grid": (n) => {
    const width = 40, row = range(width).map((i) => x(`x${i}`));
    for (let i = 0; i < n / width; i++) {
      for (let j = 0; j < width; j++) row[j] = next(row[j], row[(j + width - 1) % width]);
    }
    return makeGraph({ y: total(row) });
  },
  "a narrow grid": (n) => {
    const width = 5, row = range(width).map((i) => x(`x${i}`));
    for (let i = 0; i < n / width; i++) {
      for (let j = 0; j < width; j++) row[j] = next(row[j], row[(j + width - 1) % width]);
    }
    return makeGraph({ y: total(row) });
  },
  "a fan": (n) => {
    const from = x();
    return makeGraph({ y: concat(range(n).map((i) => mul(from, i + 2)), 1) });
  },
  "a fan that is packed": (n) => {
    const from = x();
    const parts = range(n).map((i) => sum(mul(from, i + 2), [1]));
    return makeGraph({ y: pack(parts, { offsets: range(n).map((i) => 2 * i), size: 2 * n }) });
  },
  "a fan that is added up": (n) => {
    const from = x();
    return makeGraph({ y: total(range(n / 2).map((i) => tanh(mul(from, i + 2)))) });
  },
  "a chain of operations with kernels": (n) => makeGraph({ y: last(chain(n, (x) => softmax(x))) }),
  "a ladder of operations with kernels": (n) =>
    makeGraph({ y: last(chain(n / 2, (a, b) => softmax(next(a, b)), [x("a"), x("b")])) }),
  "a chain of views": (n) =>
    makeGraph({
      y: tanh(last(chain(n, (x) => permute(reshape(x, [3, 2, 2]), [1, 0, 2]), [x()]))),
    }),
  "a chain of views with work between": (n) =>
    makeGraph({ y: last(chain(n / 2, (x) => tanh(permute(x, [1, 0])))) }),
  "parts of a tensor": (n) => {
    const from = input("x", [n, 3]);
    return makeGraph({ y: total(range(n / 2).map((i) => tanh(slice(from, 0, i, 1)))) });
  },
  "parts of a tensor that overlap": (n) => {
    const from = input("x", [n, 3]);
    return makeGraph({ y: total(range(n / 4).map((i) => tanh(slice(from, 0, i, n / 2)))) });
  },
  "states": (n) => {
    const states = range(n / 2).map((i) => x(`x${i}`));
    return makeGraph({}, states.map((x, i) => [x, next(x, states[(i * 7 + 1) % states.length])]));
  },
  "states that move on": (n) => {
    const states = range(n / 2).map((i) => x(`x${i}`));
    return makeGraph({}, states.map((x, i) => [x, states[(i + 1) % states.length]]));
  },
};
// Their gradients are graphs too.
for (const name of Object.keys(graphs).filter((name) => !/output|states|halvings/.test(name))) {
  graphs[`the gradient of ${name}`] = (n) =>
    gradient(graphs[name](12 * Math.ceil(n / 36)).outputs.y);
}
graphs["the gradient of a chain that is computed again"] = (n) => {
  const all = chain(n / 4), starts = all.filter((_, i) => i % 20 === 0);
  const segments = starts.slice(1).map((to, i) => ({ from: starts[i], to }));
  return gradient(last(all), segments);
};

/** Expressions of stages in all. */
const sizeOfExpressions = (stages: readonly { readonly stage: Stage }[]) =>
  stages.reduce((n, { stage }) => {
    const all = "loop" in stage
      ? stage.loop.results.map((r) => r.expression)
      : [stage.fused.input, stage.fused.output].flatMap((f) => f ? [f.expression] : []);
    return n + e.inOrder(all).length;
  }, 0);

/** Lengths of lifetimes and pairs of them that overlap, which a plan of memory has to look at. */
function overlapsOf(lifetimes: readonly Lifetime<unknown>[]): number {
  let pairs = 0;
  for (const [i, a] of lifetimes.entries()) {
    pairs += a.last - a.first;
    for (const b of lifetimes.slice(i + 1)) {
      if (a.first <= b.last && b.first <= a.last) pairs++;
    }
  }
  return pairs;
}

/** What it takes to compile a graph of about `n` tensors. */
function measure(build: (n: number) => Graph, n: number, [gpu, cpu]: [GpuDevice, WasmDevice]) {
  // Several times of what is needed; a thousandth of what any pass would take that is not linear.
  const most = 2e4 * n, made: { graph?: Graph; gpu?: LoweredForGpu; cpu?: LoweredForCpu } = {};
  const work: Record<string, number> = {};
  work.building = countWork(() => made.graph = build(n), most);
  const graph = made.graph!;
  work.nodes = nodesOf(graph).length;
  work["compiling for the GPU"] = countWork(() => made.gpu = lowerForGpu(gpu, graph, {}), most);
  work["compiling for the CPU"] = countWork(() => made.cpu = lowerForCpu(cpu, graph, {}), most);
  const plans = [
    { name: "GPU", lifetimes: made.gpu!.layout.lifetimes, plan: planMemory<unknown> },
    { name: "CPU", lifetimes: made.cpu!.layout.lifetimes, plan: planOffsets<unknown> },
  ];
  for (const { name, lifetimes, plan } of plans) {
    const taken = countWork(() => plan(lifetimes), most);
    assert(
      taken <= 12 * overlapsOf(lifetimes) + 60 * lifetimes.length + 100,
      `plan for the ${name}`,
    );
    work[`compiling for the ${name}`] -= taken;
  }
  const kernels = made.gpu!.stages.flatMap((stage) => stage.kernels);
  work["WGSL"] = kernels.reduce((sum, { code }) => sum + code.length, 0);
  work["expressions for the GPU"] = sizeOfExpressions(made.gpu!.stages);
  work["expressions for the CPU"] = sizeOfExpressions(made.cpu!.stages);
  const inputs = nodesOf(graph).filter((node) => inputName(node) !== undefined);
  if (inputs.every(({ shape }) => sizeOf(shape) < 1e4)) {
    const data = dataOf(graph);
    work["the interpreter"] = countWork(() => interpret(graph, data), most);
  }
  return work;
}

/** Numbers for the inputs of a graph. */
function dataOf(graph: Graph): Record<string, HostArray> {
  const inputs = nodesOf(graph).filter((node) => inputName(node) !== undefined);
  return Object.fromEntries(inputs.map((node, i) => [
    inputName(node)!,
    Float64Array.from({ length: sizeOf(node.shape) }, (_, k) => Math.fround(Math.sin(i + k))),
  ]));
}

for (const [name, build] of Object.entries(graphs)) {
  Deno.test(`compiling takes twice as long for twice as much: ${name}`, async () => {
    using gpu = await openGpuAs({ fusesOperations: true });
    using cpu = await WasmDevice.open(1);
    const n = name.includes("gradient") ? 480 : 960;
    const [once, twice] = [n, 2 * n].map((n) => measure(build, n, [gpu, cpu]));
    for (const [what, amount] of Object.entries(twice)) {
      // Sorting takes a little more.
      const most = 2.4 * once[what] + 1000;
      assert(amount <= most, `${what}: ${once[what]} for ${n}, ${amount} for ${2 * n}`);
    }
  });
}

const kinds = ["this GPU", "a GPU with few buffers", "a CPU with one thread"] as const;
for (const kind of kinds) {
  Deno.test(`long and wide graphs give what the interpreter finds, on ${kind}`, async () => {
    using device = await devices[kind]();
    for (const name of ["a chain", "a ladder", "a grid", "halvings"]) {
      const graph = graphs[name](device.kind === "cpu" ? 1920 : 120), data = dataOf(graph);
      using program = await device.compile(graph);
      for (const [input, values] of Object.entries(data)) program.buffers[input].write(values);
      program.run();
      const expected = interpret(graph, data).y;
      assertClose(await program.buffers.y.read(), expected, 1e-4, name);
    }
  });
}

Deno.test("what is computed twice is bounded", async () => {
  using gpu = await openGpuAs({ fusesOperations: true });
  const { stages } = lowerForGpu(gpu, graphs["a chain of which each is summed"](960), {});
  for (const { stage } of stages) {
    if (!("loop" in stage)) continue;
    for (const { expression } of stage.loop.results) {
      const calls = e.inOrder([expression]).filter(({ kind }) => kind === "call").length;
      assert(calls <= 64 * stage.loop.results.length, `${calls} for an element`);
    }
  }
});

Deno.test("states are read for their old values, be they updated in place or not", async () => {
  const states = range(40).map((i) => input(`x${i}`, [5 + i, 3]));
  // Each is to be written after something that is made later has read it.
  const values = states.map((state, i) => add(tanh(state), sum(states[Math.max(0, i - 1)])));
  const graph = makeGraph({}, states.map((state, i) => [state, values[i]]));
  const data = dataOf(graph), expected = structuredClone(data);
  interpret(graph, expected);
  for (const kind of kinds) {
    using device = await devices[kind]();
    using program = await device.compile(graph);
    for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
    program.run();
    for (const name of Object.keys(data)) {
      assertClose(await program.buffers[name].read(), expected[name], 1e-5, `${name}, ${kind}`);
    }
    const copies = program.describe().stages.filter(({ op, fused }) =>
      op === "map" && !Object.keys(fused).length
    );
    assert(copies.length > 0 && copies.length < 30, `${copies.length} copies on ${kind}`);
  }
});

Deno.test("work is counted, and ended", () => {
  const square = (n: number) => () => range(n).forEach(() => range(n).some((i) => i < 0));
  assertEquals(countWork(square(20), 1000), countWork(square(20), 1000));
  assert(countWork(square(20), 1e4) > 3 * countWork(square(10), 1e4));
  assertThrows(() => countWork(square(100), 1000), RangeError, "more than 1000 steps");
  assertEquals([1, 2].map((x) => x), [1, 2]);
});
