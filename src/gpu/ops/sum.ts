/**
 * Sums over axes. {@linkcode sum} and {@linkcode mean} keep the summed axes with size 1, as
 * broadcasting wants them.
 *
 * @module
 */

import type { Op } from "../op.ts";
import { broadcastStrides, denseStrides, formatShape, sameShape, type Shape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { mul } from "./map.ts";
import { broadcastTo, reshape } from "./view.ts";

/** The operation; its kernels are made by the compiler, which fuses what is summed into them. */
export const sumOp: Op<{ axes: readonly number[] }> = {
  name: "sum",
  infer([x], { axes }) {
    if (axes.some((axis) => !(axis >= 0 && axis < x.shape.length))) {
      throw new RangeError(`Cannot sum axes ${formatShape(axes)} of ${formatShape(x.shape)}`);
    }
    return { shape: x.shape.map((n, i) => axes.includes(i) ? 1 : n) };
  },
  reference({ inputs: [x], shape }, [from], out) {
    const strides = broadcastStrides(shape, denseStrides(shape), x.shape);
    const sums = new Float64Array(out.length);
    const at = new Array<number>(x.shape.length).fill(0);
    let to = 0;
    for (let i = 0; i < from.length; i++) {
      sums[to] += from[i];
      for (let axis = x.shape.length - 1; axis >= 0; axis--) {
        to += strides[axis];
        if (++at[axis] < x.shape[axis]) break;
        to -= at[axis] * strides[axis];
        at[axis] = 0;
      }
    }
    out.set(sums);
  },
  gradient: ({ inputs: [x] }, g) => [broadcastTo(g, x.shape)],
  expand: ({ inputs: [x], attributes: { axes } }) => x.op.sum?.(x, axes),
  // What is summed over many elements is worth its digits.
  halves: { reads: true, writes: false },
  cases: [
    { name: "everything", inputs: [{ shape: [3, 7, 13, 5] }], build: (x) => sum(x, [0, 1, 2, 3]) },
    { name: "everything, long", inputs: [{ shape: [70000] }], build: (x) => sum(x, [0]) },
    { name: "to channels", inputs: [{ shape: [3, 28, 28, 12] }], build: (x) => sum(x, [0, 1, 2]) },
    {
      name: "to odd channels",
      inputs: [{ shape: [3, 7, 13, 5] }],
      build: (x) => sum(x, [0, 1, 2]),
    },
    { name: "one channel", inputs: [{ shape: [3, 7, 13, 1] }], build: (x) => sum(x, [0, 1, 2]) },
    { name: "image by image", inputs: [{ shape: [3, 7, 13, 8] }], build: (x) => sum(x, [1, 2]) },
    { name: "many rows", inputs: [{ shape: [5000, 20] }], build: (x) => sum(x, [0]) },
    { name: "rows", inputs: [{ shape: [9, 49] }], build: (x) => sum(x, [1]) },
    { name: "batch of one", inputs: [{ shape: [1, 40] }], build: (x) => sum(x, [0]) },
    {
      name: "pairs of rows and columns",
      inputs: [{ shape: [3, 2, 5, 2, 4] }],
      build: (x) => sum(x, [1, 3]),
    },
  ],
};

/** Sum over axes, by default all; they stay with size 1. */
export function sum(x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor {
  const long = axes.filter((axis) => x.shape[axis] !== 1);
  return long.length ? apply(sumOp, [x], { axes: long }) : x;
}

/** Mean over axes, by default all; they stay with size 1. */
export function mean(x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor {
  return mul(sum(x, axes), 1 / axes.reduce((n, axis) => n * x.shape[axis], 1));
}

/** Sums whatever broadcasting `shape` to the shape of `x` would have repeated. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const missing = x.shape.length - shape.length;
  const axes = x.shape.map((_, i) => i).filter((i) => i < missing || shape[i - missing] === 1);
  return reshape(sum(x, axes), shape);
}
