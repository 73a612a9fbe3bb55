import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import * as e from "../../src/gpu/expression.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { gelu, map } from "../../src/gpu/ops/map.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { devices } from "../device.ts";

const [x, y] = [e.argument(0), e.argument(1)];

Deno.test("equal expressions are the same object", () => {
  assertStrictEquals(e.add(e.mul(x, y), 1), e.add(e.mul(x, y), 1));
});

Deno.test("call() folds what is obvious", () => {
  assertStrictEquals(e.add(x, 0), x);
  assertStrictEquals(e.mul(1, x), x);
  assertStrictEquals(e.mul(x, 0), e.constant(0));
  assertStrictEquals(e.neg(e.neg(x)), x);
  assertStrictEquals(e.add(2, 3), e.constant(5));
  assertStrictEquals(e.select(x, y, y), y);
  assertStrictEquals(e.max(e.min(-3, 1), -1), e.constant(-1));
  assertStrictEquals(e.min(e.max(-3, 1), 2), e.constant(1));
});

Deno.test("differentiate() applies product and chain rule", () => {
  assertStrictEquals(e.differentiate(e.mul(x, y), 0), y);
  assertStrictEquals(e.differentiate(e.mul(x, x), 0), e.add(x, x));
  assertStrictEquals(e.differentiate(e.exp(e.mul(x, y)), 1), e.mul(e.exp(e.mul(x, y)), x));
  assertStrictEquals(e.differentiate(e.sin(y), 0), e.constant(0));
});

Deno.test("substitute() replaces arguments", () => {
  assertStrictEquals(e.substitute(e.add(x, y), (i) => i ? e.constant(0) : x), x);
});

Deno.test("erf has the values of tables", () => {
  const erf = e.primitives.erf.value as (x: number) => number;
  const table = [
    [0, 0],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2, 0.9953222650189527],
    [
      3,
      0.9999779095030014,
    ],
    [-1, -0.8427007929497149],
    [7, 1],
  ];
  for (const [at, value] of table) assertEquals(Math.abs(erf(at) - value) < 1e-14, true, `${at}`);
});

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`erf and gelu are exact within 1e-6, on ${kind}`, async () => {
    using device = await open();
    const points = Float64Array.from({ length: 4001 }, (_, i) => Math.fround((i - 2000) / 250));
    const at = input("x", [points.length]), outputs = { erf: map([at], e.erf), gelu: gelu(at) };
    using program = await device.compile(makeGraph(outputs));
    program.buffers.x.write(points);
    program.run();
    const expected = interpret(makeGraph(outputs), { x: points });
    for (const name of ["erf", "gelu"]) {
      const actual = await program.buffers[name].read();
      const error = (i: number) => Math.abs(actual[i] - expected[name][i]);
      const worst = points.reduce((w, _, i) => error(i) > error(w) ? i : w, 0);
      assert(error(worst) <= 1e-6, `${name}(${points[worst]}): ${actual[worst]}`);
      // Far out nothing is left of the argument, as in PyTorch.
      assert(Math.abs(actual[0]) === (name === "erf" ? 1 : 0), `${name}(-8): ${actual[0]}`);
    }
  });
}
