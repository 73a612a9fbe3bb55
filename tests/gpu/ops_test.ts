import { assert, assertEquals } from "@std/assert";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import type { Case, Op } from "../../src/gpu/op.ts";
import { mul } from "../../src/gpu/ops/map.ts";
import { ops } from "../../src/gpu/ops/mod.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { stopGradient } from "../../src/gpu/ops/view.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { sizeOf } from "../../src/shape.ts";
import { simplify } from "../../src/gpu/compile/simplify.ts";
import { type HostArray, input, type Tensor } from "../../src/gpu/tensor.ts";
import { assertClose } from "../close.ts";
import { devices, RunPrograms } from "../device.ts";
import { Random } from "../random.ts";

/** A case with data, its result, and the gradients of a weighted sum of the result. */
function prepare(op: Op, { name, inputs, build }: Case) {
  const random = new Random(`${op.name} ${name}`);
  const data: Record<string, HostArray> = {};
  const tensors = inputs.map(({ shape, dtype = "f32", range: [low, high] = [-1, 1] }, i) => {
    const values = Array.from({ length: sizeOf(shape) }, () => random.between(low, high));
    data[`x${i}`] = dtype === "i32"
      ? Int32Array.from(values, (v) => Math.round(v))
      : Float64Array.from(values, Math.fround);
    return input(`x${i}`, shape, dtype);
  });
  const y = build(...tensors), by = tensors.filter((x) => x.dtype === "f32");
  const outputs: Record<string, Tensor> = { y };
  if (y.dtype === "f32" && op.gradient && by.length) {
    const weights = input("weights", y.shape);
    data.weights = Float64Array.from(
      { length: sizeOf(y.shape) },
      () => Math.fround(random.between(-1, 1)),
    );
    const loss = sum(mul(y, weights));
    outputs.loss = loss;
    grad(loss, by).forEach((g, i) => outputs[`gradient ${i}`] = g);
  }
  return { data, outputs, by };
}

const cases = ops.flatMap((op) => (op.cases ?? []).map((c) => ({ op, c })));

Deno.test("every operation has a reference or is made of others, and cases", () => {
  for (const op of ops) assert(op.reference, `${op.name} has no reference`);
  // To disagree with central differences is the purpose of stop_gradient.
  for (const op of ops.filter((o) => o.gradient && o.name !== "stop_gradient")) {
    const own = cases.filter((one) => one.op === op);
    assert(own.some(hasGradient), `${op.name} lacks cases whose gradient can be compared`);
  }
});

Deno.test("stop_gradient is the tensor itself, and a constant for gradients", () => {
  const x = input("x", [3]), y = mul(x, stopGradient(x)), [g] = grad(sum(y), [x]);
  const { value, gradient } = interpret(makeGraph({ value: y, gradient: g }), {
    x: Float64Array.of(1, -2, 3),
  });
  assertEquals([[...value], [...gradient]], [[1, 4, 9], [1, -2, 3]]);
});

const hasGradient = ({ op, c }: { op: Op; c: Case }) => "loss" in prepare(op, c).outputs;

for (const { op, c } of cases.filter(hasGradient)) {
  Deno.test(`${op.name}: gradients equal central differences: ${c.name}`, () => {
    const { data, outputs, by } = prepare(op, c);
    const random = new Random(c.name);
    const gradients = interpret(makeGraph(outputs), data);
    const loss = makeGraph({ loss: outputs.loss });
    by.forEach((x, k) => {
      const name = (x.attributes as { name: string }).name, values = data[name];
      const places = Array.from({ length: 5 }, () => random.below(values.length));
      const step = 1e-5,
        expected = places.map((i) => {
          const value = values[i];
          const [up, down] = [value + step, value - step].map((v) => {
            values[i] = v;
            return interpret(loss, data).loss[0];
          });
          values[i] = value;
          return (up - down) / (2 * step);
        });
      // A kink (of min, max, relu) between the two points would need luck that the seed does not have.
      const actual = places.map((i) => gradients[`gradient ${k}`][i]);
      const scale = Math.max(1, ...expected.map(Math.abs));
      assertClose([...actual, scale], [...expected, scale], 1e-5, `gradient by ${name}`);
    });
  });
}

for (const { op, c } of cases) {
  Deno.test(`${op.name}: simplification changes nothing: ${c.name}`, () => {
    const { data, outputs } = prepare(op, c), graph = makeGraph(outputs);
    const expected = interpret(graph, data);
    for (const computesAll of [false, true]) {
      const actual = interpret(simplify(graph, { computes: () => computesAll }), data);
      for (const name of Object.keys(outputs)) {
        assertClose(actual[name], expected[name], 1e-12, name);
      }
    }
  });
}

const run = new RunPrograms();

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`kernels agree with the reference, on ${kind}`, async (t) => {
    using device = await open();
    for (const { op, c } of cases) {
      const { data, outputs } = prepare(op, c), graph = makeGraph(outputs);
      if (run.has(device, graph)) continue;
      await t.step(`${op.name}: ${c.name}`, async () => {
        const expected = interpret(graph, data);
        using program = await device.compile(graph, { label: c.name });
        for (const [name, values] of Object.entries(data)) program.buffers[name]?.write(values);
        program.run();
        for (const name of Object.keys(outputs)) {
          const actual = await program.buffers[name].read();
          // Sums of products of both signs are compared with what they are made of.
          const scale = name === "loss" ? Math.sqrt(sizeOf(outputs.y.shape)) : 0.01;
          // F(4 x 4, 3 x 3) costs a bit of the precision that direct sums have.
          assertClose([...actual, scale], [...expected[name], scale], 2e-5, name);
        }
      });
    }
  });
}
