/**
 * Softmax over the last axis, {@linkcode softmax}.
 *
 * @module
 */

import { mul, sub } from "../expression.ts";
import type { Op } from "../op.ts";
import { sizeOf } from "../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerSoftmax as lowerOnCpu } from "../wasm/small.ts";
import { aliases, EXP } from "../wgsl/expression.ts";
import {
  bind,
  bindInput,
  type Kernel,
  load,
  makeKernel,
  store,
  type WgslTarget,
} from "../wgsl/kernel.ts";
import { map } from "./map.ts";
import { sum } from "./sum.ts";

/** An invocation takes a row: maximum, sum of exponentials, quotient. */
function lowerSoftmax(node: Tensor, target: WgslTarget): Kernel[] {
  const width = node.shape.at(-1)!, rows = sizeOf(node.shape) / width;
  const isVector = width % 4 === 0, T = isVector ? "vec4f" : "f32";
  const x = bindInput("x", node.inputs[0], isVector);
  const y = bind("y", node, { vector: isVector, write: true });
  const power = `exp_accurate(${load(x, "i")} - top)`;
  // What is rounded once should not be read to be rounded again.
  const [keep, finish] = node.isHalf
    ? ["", store(y, "i", `${power} * scale`)]
    : [store(y, "i", "e"), "y[i] *= scale;"];
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
let scale = 1.0 / (${fold((a, b) => `${a} + ${b}`, "total")});
for (var i = begin; i < end; i++) { ${finish} }`,
    workgroups: [Math.ceil(rows / target.lanes), 1, 1],
  })];
}

const softmaxOp: Op<Record<never, never>> = {
  name: "softmax",
  infer: ([x]) => ({ shape: x.shape }),
  reference({ shape }, [x], out) {
    const width = shape.at(-1)!;
    for (let row = 0; row < x.length; row += width) {
      let top = -Infinity, total = 0;
      for (let i = 0; i < width; i++) top = Math.max(top, x[row + i]);
      for (let i = 0; i < width; i++) total += Math.exp(x[row + i] - top);
      for (let i = 0; i < width; i++) out[row + i] = Math.exp(x[row + i] - top) / total;
    }
  },
  gradient: (y, g) => [softmaxGrad(y, g)],
  variants: [{ name: "row", lower: lowerSoftmax }],
  halves: { reads: true, writes: true },
  wasm: lowerOnCpu,
  cases: [
    { name: "fours", inputs: [{ shape: [3, 5, 16], range: [-9, 9] }], build: (x) => softmax(x) },
    { name: "odd", inputs: [{ shape: [2, 49, 49], range: [-9, 9] }], build: (x) => softmax(x) },
    { name: "large", inputs: [{ shape: [4, 12], range: [-500, 500] }], build: (x) => softmax(x) },
  ],
};

/** Exponentials of the last axis, divided by their sum. */
export function softmax(x: Tensor): Tensor {
  return apply(softmaxOp, [x], {});
}

/** The gradient by what softmax gave `y` for, given the gradient `g` by `y`. */
export function softmaxGrad(y: Tensor, g: Tensor): Tensor {
  const gy = map([g, y], mul);
  return map([y, g, sum(gy, [y.shape.length - 1])], (y, g, s) => mul(y, sub(g, s)));
}

/** All operations of this file. */
export const softmaxOps: readonly Op[] = [softmaxOp];
