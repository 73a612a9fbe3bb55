import { assertEquals, assertStrictEquals } from "@std/assert";
import * as e from "../../src/gpu/expression.ts";

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
