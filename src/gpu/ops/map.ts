/**
 * Elementwise operations. {@linkcode map} applies any {@linkcode Expression} with numpy
 * broadcasting; its gradient is the differentiated expression. The named functions are one line each.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Expression } from "../expression.ts";
import type { Case, Op } from "../op.ts";
import {
  broadcastShapes,
  broadcastStrides,
  denseStrides,
  sameShape,
  type Shape,
} from "../../shape.ts";
import { apply, type DType, type HostArray, type Tensor } from "../tensor.ts";
import { sumTo } from "./sum.ts";
import { broadcastTo, permute, reshape, slice } from "./view.ts";

/** An expression in attributes; its key is the identity of the interned expression. */
export class Formula {
  constructor(readonly expression: Expression) {}
  toJSON(): number {
    return this.expression.id;
  }
}

/** Attributes of an elementwise operation. */
export interface MapAttributes {
  readonly formula: Formula;
  readonly dtype: DType;
}

/** How many elements the interpreter evaluates at a time, so that its scratch stays in cache. */
const BLOCK = 2048;

/** Evaluates an expression over all elements, one primitive and block at a time. */
function evaluate(
  expression: Expression,
  shape: Shape,
  inputs: readonly Tensor[],
  arrays: readonly HostArray[],
  out: HostArray,
): void {
  const steps = e.inOrder([expression]);
  const scratch = new Map(steps.map((s) => [s, new Float64Array(BLOCK)]));
  for (const s of steps) if (s.kind === "constant") scratch.get(s)!.fill(s.value);
  const strides = inputs.map((x) => broadcastStrides(x.shape, denseStrides(x.shape), shape));
  const dense = inputs.map((x) => sameShape(x.shape, shape));
  for (let start = 0; start < out.length; start += BLOCK) {
    const n = Math.min(BLOCK, out.length - start);
    for (const s of steps) {
      const to = scratch.get(s)!;
      if (s.kind === "argument") {
        const from = arrays[s.index];
        if (dense[s.index]) to.set(from.subarray(start, start + n));
        else gather(from, shape, strides[s.index], start, n, to);
      } else if (s.kind === "call") {
        const f = e.primitives[s.primitive].value as (a: number, b: number, c: number) => number;
        const [a, b = a, c = a] = s.operands.map((o) => scratch.get(o)!);
        for (let i = 0; i < n; i++) to[i] = f(a[i], b[i], c[i]);
      }
    }
    out.set(scratch.get(expression)!.subarray(0, n), start);
  }
}

/** Reads elements [start, start + n) of a broadcast view. */
function gather(
  from: HostArray,
  shape: Shape,
  strides: readonly number[],
  start: number,
  n: number,
  to: Float64Array,
): void {
  const at = new Array<number>(shape.length).fill(0);
  let index = 0;
  for (let axis = shape.length - 1, rest = start; axis >= 0; axis--) {
    at[axis] = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
    index += at[axis] * strides[axis];
  }
  for (let i = 0; i < n; i++) {
    to[i] = from[index];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index += strides[axis];
      if (++at[axis] < shape[axis]) break;
      index -= at[axis] * strides[axis];
      at[axis] = 0;
    }
  }
}

/** The elementwise operation. Its kernels are made by the compiler, which fuses chains of it. */
export const mapOp: Op<MapAttributes> = {
  name: "map",
  infer: (inputs, { dtype }) => ({ shape: broadcastShapes(inputs.map((x) => x.shape)), dtype }),
  reference: (node, arrays, out) =>
    evaluate(node.attributes.formula.expression, node.shape, node.inputs, arrays, out),
  gradient: ({ inputs, attributes: { formula } }, g, needed) =>
    inputs.map((x, i) => {
      const d = needed[i] ? e.differentiate(formula.expression, i) : e.constant(0);
      if (d.kind === "constant" && d.value === 0) return undefined;
      const expression = e.mul(e.argument(inputs.length), d);
      return sumTo(fromExpression(expression, [...inputs, g]), x.shape);
    }),
  halves: { reads: true, writes: true },
};

/** The operation of an expression, without the inputs that it does not read. */
function fromExpression(
  expression: Expression,
  inputs: readonly Tensor[],
  dtype: DType = "f32",
): Tensor {
  const read = [
    ...new Set(e.inOrder([expression]).flatMap((s) => s.kind === "argument" ? [s.index] : [])),
  ].sort((a, b) => a - b);
  const used = read.map((i) => inputs[i]);
  const compact = e.substitute(expression, (i) => e.argument(read.indexOf(i)));
  if (compact.kind === "argument" && used[0].dtype === dtype) return used[0];
  return apply(mapOp, used, { formula: new Formula(compact), dtype });
}

/**
 * Applies a function to the elements of tensors that broadcast together.
 *
 * @param inputs Tensors; a number stands for a constant.
 * @param f What to compute of one element each, made of the functions of `expression.ts`.
 * @param dtype Element type of the result; an `i32` result is rounded towards zero.
 */
export function map(
  inputs: readonly (Tensor | number)[],
  f: (...elements: Expression[]) => Expression,
  dtype: DType = "f32",
): Tensor {
  const tensors = [...new Set(inputs.filter((x) => typeof x !== "number"))];
  const elements = inputs.map((x) =>
    typeof x === "number" ? e.constant(x) : e.argument(tensors.indexOf(x))
  );
  const result = fromExpression(f(...elements), tensors, dtype);
  // A function may ignore an input that gives the shape, as a product with 0 does.
  return broadcastTo(result, broadcastShapes(tensors.map((x) => x.shape)));
}

/** A dense copy. */
export function copy(x: Tensor): Tensor {
  const attributes = { formula: new Formula(e.argument(0)), dtype: x.dtype };
  return apply(mapOp, [x], attributes);
}

/** Whether an elementwise tensor is one. */
export const isCopy = ({ attributes, dtype, inputs: [x] }: Tensor): boolean =>
  (attributes as MapAttributes).formula.expression === e.argument(0) && dtype === x.dtype;

/** A function of each element. */
export type Unary = (x: Tensor) => Tensor;
/** A function of two elements at the same place. */
export type Binary = (a: Tensor | number, b: Tensor | number) => Tensor;
const unary = (f: (x: Expression) => Expression): Unary => (x) => map([x], f);
const binary = (f: (a: Expression, b: Expression) => Expression): Binary => (a, b) =>
  map([a, b], f);

/** a + b, broadcast as NumPy does. */
export const add: Binary = binary(e.add);
/** a - b, broadcast. */
export const sub: Binary = binary(e.sub);
/** a · b, broadcast. */
export const mul: Binary = binary(e.mul);
/** a / b, broadcast. */
export const div: Binary = binary(e.div);
/** The smaller one, broadcast. */
export const min: Binary = binary(e.min);
/** The larger one, broadcast. */
export const max: Binary = binary(e.max);
/** -a. */
export const neg: Unary = unary(e.neg);
/** e to the power of a. */
export const exp: Unary = unary(e.exp);
/** The natural logarithm. */
export const log: Unary = unary(e.log);
/** The square root. */
export const sqrt: Unary = unary(e.sqrt);
/** The sine. */
export const sin: Unary = unary(e.sin);
/** The cosine. */
export const cos: Unary = unary(e.cos);
/** The hyperbolic tangent. */
export const tanh: Unary = unary(e.tanh);
/** a². */
export const square: Unary = unary((x) => e.mul(x, x));
/** a where it is positive, else 0. */
export const relu: Unary = unary((x) => e.max(x, 0));
/** x σ(x), also called swish. */
export const silu: Unary = unary((x) => e.mul(x, e.sigmoid(x)));
/** x Φ(x), with the Gauss error function. */
export const gelu: Unary = unary((x) =>
  e.mul(e.mul(x, 0.5), e.add(e.erf(e.mul(x, Math.SQRT1_2)), 1))
);
/** x tanh(ln(1 + eˣ)); the logarithm is written so that eˣ cannot overflow. */
export const mish: Unary = unary((x) => {
  const softplus = e.sub(e.max(x, 0), e.log(e.sigmoid(e.max(x, e.neg(x)))));
  return e.mul(x, e.tanh(softplus));
});
/** `x` limited to [low, high]. */
export const clamp = (x: Tensor, low: number, high: number): Tensor =>
  map([x], (x) => e.max(e.min(x, high), low));
/** `x` as floats. */
export const toFloat = (x: Tensor): Tensor => map([x], (x) => x, "f32");

/** Named operations and the ranges they are tested on. */
const mapCases: readonly Case[] = [
  ...Object.entries({ neg, exp, sin, cos, tanh, square, relu, silu, gelu, mish }).map((
    [name, build],
  ) => ({ name, inputs: [{ shape: [3, 5, 4], range: [-4, 4] as const }], build })),
  { name: "sin, far out", inputs: [{ shape: [400], range: [-1000, 1000] }], build: sin },
  { name: "cos, far out", inputs: [{ shape: [400], range: [-1000, 1000] }], build: cos },
  { name: "silu, far out", inputs: [{ shape: [63], range: [-120, 120] }], build: silu },
  { name: "gelu, far out", inputs: [{ shape: [63], range: [-12, 12] }], build: gelu },
  { name: "mish, far out", inputs: [{ shape: [63], range: [-120, 120] }], build: mish },
  { name: "log", inputs: [{ shape: [7, 13], range: [0.01, 9] }], build: log },
  { name: "sqrt", inputs: [{ shape: [1, 13], range: [0.01, 9] }], build: sqrt },
  { name: "clamp", inputs: [{ shape: [9], range: [-2, 2] }], build: (x) => clamp(x, -1, 1) },
  ...Object.entries({ add, sub, mul, min, max }).map(([name, build]) => ({
    name: `${name} with a row`,
    inputs: [{ shape: [3, 7, 13, 5] }, { shape: [5] }],
    build,
  })),
  {
    name: "div by one value an image and channel",
    inputs: [{ shape: [3, 7, 13, 8] }, { shape: [3, 1, 1, 8], range: [1, 2] }],
    build: div,
  },
  {
    name: "integers and back, with what is left",
    inputs: [{ shape: [3, 37], range: [-9, 9] }],
    build: (x) => sub(x, toFloat(map([x], (x) => x, "i32"))),
  },
  ...[[8, 4], [8, 3]].map((shape) => ({
    name: `an integer beside ${shape.join("x")} floats`,
    inputs: [{ shape }, { shape: [8, 1], dtype: "i32" as const, range: [0, 5] as const }, {
      shape: [1],
      dtype: "i32" as const,
      range: [0, 5] as const,
    }],
    build: (x: Tensor, row: Tensor, one: Tensor) =>
      map([x, row, one], (x, row, one) => e.select(e.sub(row, one), x, e.add(x, one))),
  })),
  {
    name: "a function that ignores what gives the shape",
    inputs: [{ shape: [3, 5, 8] }, { shape: [5, 1] }],
    build: (x, y) => add(mul(x, 0), map([x, y], (_, y) => e.mul(y, y))),
  },
  { name: "a column and a row", inputs: [{ shape: [6, 1] }, { shape: [12] }], build: add },
  {
    name: "a channel in the middle of a view",
    inputs: [{ shape: [3, 4, 5, 6] }, { shape: [6, 5] }],
    build: (x, y) => mul(permute(x, [0, 1, 3, 2]), y),
  },
  {
    name: "many elements",
    inputs: [{ shape: [8, 28, 28, 12] }, { shape: [8, 1, 1, 1] }, { shape: [12] }],
    build: (x, a, b) => map([x, a, b], (x, a, b) => e.mul(e.add(x, a), e.sigmoid(b))),
  },
  {
    name: "many places of one input",
    inputs: [{ shape: [3, 7, 13, 5] }, { shape: [1, 24] }],
    build(x, row) {
      const places = Array.from(
        { length: 24 },
        (_, i) => reshape(slice(row, 1, i, 1), [1, 1, 1, 1]),
      );
      return map(
        [x, ...places],
        (x, ...ws) => ws.reduce((sum, w, i) => e.add(sum, e.mul(w, i % 2 ? x : i)), x),
      );
    },
  },
];

/** The elementwise operation with its tests. */
export const mapOps: readonly Op[] = [{ ...mapOp, cases: mapCases }];
