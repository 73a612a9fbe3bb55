/**
 * Softmax over the last axis, {@linkcode softmax}.
 *
 * @module
 */

import * as e from "../expression.ts";
import { grad } from "../grad.ts";
import type { Op } from "../op.ts";
import { sizeOf } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerSoftmax as lowerOnCpu } from "../wasm/softmax_gather_random.ts";
import { aliases, EXP, literal } from "../wgsl/expression.ts";
import {
  bind,
  bindInput,
  type Kernel,
  load,
  makeKernel,
  store,
  type WgslTarget,
} from "../wgsl/kernel.ts";
import { map, mul } from "./map.ts";
import { sum } from "./sum.ts";

interface SoftmaxAttributes {
  readonly scale: number;
}

/** An invocation takes a row: maximum, sum of exponentials, quotient. */
function lowerSoftmax(node: Tensor<SoftmaxAttributes>, target: WgslTarget): Kernel[] {
  const width = node.shape.at(-1)!, rows = sizeOf(node.shape) / width;
  const isVector = width % 4 === 0, T = isVector ? "vec4f" : "f32";
  const x = bindInput("x", node.inputs[0], isVector);
  const y = bind("y", node, { vector: isVector, write: true });
  const power = `exp_accurate(${literal(node.attributes.scale)} * (${load(x, "i")} - top))`;
  // What is rounded once should not be read to be rounded again.
  const [keep, finish] = node.isHalf
    ? ["", store(y, "i", `${power} * share`)]
    : [store(y, "i", "e"), "y[i] *= share;"];
  const fold = (f: (a: string, b: string) => string, v: string) =>
    isVector ? f(f(`${v}.x`, `${v}.y`), f(`${v}.z`, `${v}.w`)) : v;
  return [makeKernel({
    label: "softmax",
    bindings: [x, y],
    uniforms: { rows, width: isVector ? width / 4 : width },
    functions: `${aliases(T)}\n${EXP}`,
    lanes: target.lanes,
    body: `let row = group.x * ${target.lanes}u + lane;
if (row >= u.rows) { return; }
let begin = row * u.width; let end = begin + u.width;
var most = ${load(x, "begin")};
for (var i = begin + 1u; i < end; i++) { most = max(most, ${load(x, "i")}); }
let top = ${fold((a, b) => `max(${a}, ${b})`, "most")};
var total = ${T}();
for (var i = begin; i < end; i++) { let e = ${power}; total += e; ${keep} }
let share = 1.0 / (${fold((a, b) => `${a} + ${b}`, "total")});
for (var i = begin; i < end; i++) { ${finish} }`,
    workgroups: [Math.ceil(rows / target.lanes), 1, 1],
  })];
}

/** An invocation takes a row: the sum of the products, then each gradient less that. */
function lowerSoftmaxGrad(node: Tensor<SoftmaxAttributes>, target: WgslTarget): Kernel[] {
  const width = node.shape.at(-1)!, rows = sizeOf(node.shape) / width;
  const isVector = width % 4 === 0, T = isVector ? "vec4f" : "f32";
  const [p, g] = node.inputs.map((x, i) => bindInput(`x${i}`, x, isVector));
  const y = bind("y", node, { vector: isVector, write: true });
  const { scale } = node.attributes, mean = isVector ? "dot(total, vec4f(1.0))" : "total";
  return [makeKernel({
    label: "softmax, gradient",
    bindings: [p, g, y],
    uniforms: { rows, width: isVector ? width / 4 : width },
    lanes: target.lanes,
    body: `let row = group.x * ${target.lanes}u + lane;
if (row >= u.rows) { return; }
let begin = row * u.width; let end = begin + u.width;
var total = ${T}();
for (var i = begin; i < end; i++) { total += ${load(p, "i")} * ${load(g, "i")}; }
let mean = ${mean};
for (var i = begin; i < end; i++) {
  ${store(y, "i", `${load(p, "i")} * (${load(g, "i")} - mean) * ${literal(scale)}`)}
}`,
    workgroups: [Math.ceil(rows / target.lanes), 1, 1],
  })];
}

const softmaxOp: Op<SoftmaxAttributes> = {
  name: "softmax",
  infer: ([x]) => ({ shape: x.shape }),
  reference({ shape, attributes: { scale } }, [x], out) {
    const width = shape.at(-1)!, power = (i: number, top: number) => Math.exp(scale * (x[i] - top));
    for (let row = 0; row < x.length; row += width) {
      let top = -Infinity, total = 0;
      for (let i = 0; i < width; i++) top = Math.max(top, x[row + i]);
      for (let i = 0; i < width; i++) total += power(row + i, top);
      for (let i = 0; i < width; i++) out[row + i] = power(row + i, top) / total;
    }
  },
  gradient: (y, g) => [softmaxGrad(y, g, y.attributes.scale)],
  variants: [{ name: "row", lower: lowerSoftmax }],
  halves: { reads: true, writes: true },
  wasm: lowerOnCpu,
  cases: [
    { name: "fours", inputs: [{ shape: [3, 5, 16], range: [-9, 9] }], build: (x) => softmax(x) },
    { name: "odd", inputs: [{ shape: [2, 49, 49], range: [-9, 9] }], build: (x) => softmax(x) },
    {
      name: "scaled",
      inputs: [{ shape: [5, 24], range: [-9, 9] }],
      build: (x) => softmax(x, 0.125),
    },
    { name: "large", inputs: [{ shape: [4, 12], range: [-500, 500] }], build: (x) => softmax(x) },
  ],
};

/** Exponentials of the last axis times `scale`, which is positive, divided by their sum. */
export function softmax(x: Tensor, scale = 1): Tensor {
  return apply(softmaxOp, [x], { scale });
}

/** Its gradient by elementwise operations and a sum. */
function plainGradient([y, g]: readonly Tensor[], scale: number): Tensor {
  const total = sum(map([g, y], e.mul), [y.shape.length - 1]);
  return map([y, g, total], (y, g, s) => e.mul(e.mul(y, e.sub(g, s)), scale));
}

const gradientOp: Op<SoftmaxAttributes> = {
  name: "softmax_grad",
  infer: ([y]) => ({ shape: y.shape }),
  reference({ shape, attributes: { scale } }, [y, g], out) {
    const width = shape.at(-1)!;
    for (let row = 0; row < y.length; row += width) {
      let total = 0;
      for (let i = row; i < row + width; i++) total += y[i] * g[i];
      for (let i = row; i < row + width; i++) out[i] = y[i] * (g[i] - total) * scale;
    }
  },
  gradient({ inputs, attributes: { scale } }, g, needed) {
    const gradients = grad(sum(mul(plainGradient(inputs, scale), g)), inputs);
    return gradients.map((gradient, i) => needed[i] ? gradient : undefined);
  },
  expand: (node, computes) =>
    computes(node) ? undefined : plainGradient(node.inputs, node.attributes.scale),
  variants: [{ name: "row", lower: lowerSoftmaxGrad }],
  halves: { reads: true, writes: true },
  cases: [
    {
      name: "fours",
      inputs: [{ shape: [3, 5, 16], range: [0, 1] }, { shape: [3, 5, 16] }],
      build: (y, g) => softmaxGrad(y, g, 0.5),
    },
    {
      name: "odd",
      inputs: [{ shape: [2, 49, 49], range: [0, 1] }, { shape: [2, 49, 49] }],
      build: (y, g) => softmaxGrad(y, g, 1),
    },
  ],
};

/** The gradient by what softmax gave `y` for, given the gradient `g` by `y`. */
export function softmaxGrad(y: Tensor, g: Tensor, scale: number): Tensor {
  return apply(gradientOp, [y, g], { scale });
}

/** All operations of this file. */
export const softmaxOps: readonly Op[] = [softmaxOp, gradientOp];
