import { assert, assertEquals, assertRejects } from "@std/assert";
import { DeviceError } from "../../src/gpu/device.ts";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph, nodesOf } from "../../src/gpu/graph.ts";
import { halve } from "../../src/gpu/compile/mixed_precision.ts";
import type { Case, Op } from "../../src/gpu/op.ts";
import { concat, pack } from "../../src/gpu/ops/concat.ts";
import { gather } from "../../src/gpu/ops/gather.ts";
import { copy, mul } from "../../src/gpu/ops/map.ts";
import { matmul } from "../../src/gpu/ops/matmul.ts";
import { ops } from "../../src/gpu/ops/mod.ts";
import { softmax } from "../../src/gpu/ops/softmax.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { reshape, slice } from "../../src/gpu/ops/view.ts";
import { interpret, ReferenceDevice } from "../../src/gpu/reference.ts";
import { sizeOf } from "../../src/shape.ts";
import { simplify } from "../../src/gpu/compile/simplify.ts";
import { type HostArray, input, type Tensor } from "../../src/gpu/tensor.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { isBindable } from "../../src/gpu/wgsl/kernel.ts";
import { GpuDevice } from "../../src/gpu/wgsl/device.ts";
import { assertClose } from "../close.ts";
import { devices, openGpu, openGpuAs } from "../device.ts";
import { Random } from "../random.ts";

const half = { precision: "f16" } as const;

/** A case whose operands and result are computed from inputs and for outputs, so that they may be halves. */
function prepare(op: Op, { name, inputs, build }: Case) {
  const random = new Random(`${op.name} ${name}`), data: Record<string, HostArray> = {};
  const draw = (name: string, shape: readonly number[], low = -1, high = 1) => {
    data[name] = Float64Array.from(
      { length: sizeOf(shape) },
      () => Math.f16round(random.between(low, high)),
    );
    return input(name, shape);
  };
  const tensors = inputs.map(({ shape, range: [low, high] = [-1, 1] }, i) =>
    draw(`x${i}`, shape, low, high)
  );
  const y = build(...tensors.map(copy)), outputs: Record<string, Tensor> = { y: copy(y) };
  if (op.gradient) {
    grad(sum(mul(y, copy(draw("weights", y.shape)))), tensors)
      .forEach((g, i) => outputs[`gradient ${i}`] = g);
  }
  return { data, outputs };
}

const cases = ops.filter((op) => op.halves ?? op.expand).flatMap((op) =>
  (op.cases ?? []).filter((c) => c.inputs.length && c.inputs.every((x) => !x.dtype))
    .map((c) => ({ op, c }))
);

const isAttention = ({ op }: { op: Op }) => op.name.startsWith("attention");
const made = [
  "conv2d",
  "conv2d_input_grad",
  "conv2d_weight_grad",
  "group_moments",
  "map",
  "matmul",
];
const ways = [
  { kind: "this GPU", open: devices["this GPU"], kernels: [...made, "softmax", "sum"] },
  {
    ...{ kind: "a GPU with large tiles", open: devices["a GPU with large tiles"] },
    kernels: [...made, "softmax", "sum"],
  },
  {
    kind: "a GPU with attention of its own",
    open: () => openGpuAs({ subgroup: 0, preferred: "fused, 32x32" }),
    only: isAttention,
    kernels: ["", "_key_grads", "_query_grad"].map((part) => `fused_attention${part}`),
  },
];

for (const { kind, open, kernels, only = () => true } of ways) {
  Deno.test(`kernels over halves agree with the reference, on ${kind}`, async (t) => {
    using device = await open();
    const tested = new Set<string>();
    for (const { op, c } of cases.filter(only)) {
      const { data, outputs } = prepare(op, c), graph = makeGraph(outputs);
      if (!nodesOf(halve(simplify(graph), isBindableHalf)).some((x) => x.isHalf)) continue;
      await t.step(`${op.name}: ${c.name}`, async () => {
        const expected = interpret(graph, data);
        using program = await device.compile(graph, { label: c.name, ...half });
        for (const [name, values] of Object.entries(data)) program.buffers[name]?.write(values);
        program.run();
        for (const { op, kernels } of program.describe().stages) {
          if (kernels.some(({ code }) => code!.includes("f16"))) tested.add(op);
        }
        for (const name of Object.keys(outputs)) {
          const actual = await program.buffers[name].read();
          // Results are rounded to eleven bits; gradients are made of what was.
          assertClose(
            [...actual, 0.01],
            [...expected[name], 0.01],
            name === "y" ? 6e-4 : 2e-3,
            name,
          );
        }
      });
    }
    assertEquals(kernels.filter((name) => !tested.has(name)), []);
  });
}

/** Whether a GPU can read a tensor of halves where it lies. */
const isBindableHalf = (x: Tensor) => isBindable(x, 2);

/** Which named tensors a pass over a graph of them makes halves. */
function halvesAmong(tensors: Record<string, Tensor>, outputs: Record<string, Tensor>): string[] {
  const key = (x: Tensor) => `${x.op.name} ${x.shape} ${JSON.stringify(x.attributes)}`;
  const seen = new Set<string>(),
    visit = (x: Tensor): void => {
      if (x.isHalf) seen.add(key(x));
      x.inputs.forEach(visit);
    };
  Object.values(halve(simplify(makeGraph(outputs)), isBindableHalf).outputs).forEach(visit);
  return Object.entries(tensors).filter(([, x]) => seen.has(key(x))).map(([name]) => name);
}

Deno.test("halve() keeps inputs, outputs, sums, images, packs, and what a kernel wants whole", () => {
  const a = input("a", [24, 16]), product = matmul(a, a.shape[0] === 24 ? input("b", [16, 32]) : a);
  const activation = softmax(product), total = sum(activation, [0]);
  const image = matmul(activation, input("c", [32, 4]));
  const row = gather(softmax(matmul(a, input("d", [16, 8]))), input("index", [5], "i32"));
  const flat = matmul(a, input("e", [16, 40])), scaled = mul(matmul(a, input("f", [16, 48])), 2);
  const tensors = { product, activation, total, image, flat, scaled, table: row.inputs[0] };
  const outputs = {
    ...{ total: mul(total, 2), image: mul(image, 2), row, scaled },
    packed: pack([flat, scaled].map((x) => reshape(x, [sizeOf(x.shape)])), {
      offsets: [0, 960],
      size: 960 + 1152,
    }),
  };
  assertEquals(halvesAmong(tensors, outputs), ["product", "activation"]);
});

Deno.test("halve() keeps what a kernel reads from where a binding of halves may not start", () => {
  const y = matmul(input("a", [16, 24]), input("b", [24, 64]));
  const part = (row: number) => softmax(slice(y, 0, row, 4));
  assertEquals(halvesAmong({ y }, { odd: mul(part(1), 2) }), []);
  assertEquals(halvesAmong({ y }, { even: mul(part(2), 2) }), ["y"]);
});

Deno.test("memory and texts of programs with halves are half as large where they hold activations", async () => {
  using device = await openGpu();
  const x = input("x", [4, 32, 32, 64]), y = concat([softmax(x), softmax(mul(x, 2))], 3);
  const graph = makeGraph({ total: sum(softmax(y)) });
  const [full, less] = [device.plan(graph), device.plan(graph, half)];
  assert(less.temporary < 0.51 * full.temporary, `${less.temporary} of ${full.temporary} bytes`);
  using program = await device.compile(graph, half);
  const kernels = program.describe().stages.flatMap((stage) => stage.kernels);
  assert(kernels.some(({ code }) => code!.startsWith("enable f16;\n")));
  assert(kernels.every(({ code }) => code!.includes("f16") === code!.startsWith("enable f16;")));
});

Deno.test("devices without 16-bit floats say which have them", async () => {
  const graph = makeGraph({ y: mul(input("x", [4, 8]), 2) });
  using cpu = await WasmDevice.open(1);
  using reference = new ReferenceDevice();
  const adapter = await navigator.gpu.requestAdapter();
  using gpu = new GpuDevice(await adapter!.requestDevice());
  for (const device of [cpu, reference, gpu]) {
    const error = await assertRejects(() => device.compile(graph, half), DeviceError);
    assert(error.message.includes(`precision f16 on ${device.name}`), error.message);
    assert(error.message.includes("shader-f16"), error.message);
  }
});
