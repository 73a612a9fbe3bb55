/**
 * Concatenation along an axis, {@linkcode concat}; and {@linkcode pack}, which puts tensors of any
 * shapes one behind the other into a flat one, in place where their kernels can write there.
 *
 * @module
 */

import type { Op } from "../op.ts";
import { formatShape, type Shape, sizeOf } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { add } from "./map.ts";
import { sum } from "./sum.ts";
import { reshape, slice } from "./view.ts";

/** The operation; the compiler lets the inputs' kernels write into the result's memory. */
export const concatOp: Op<{ axis: number }> = {
  name: "concat",
  infer(inputs, { axis }) {
    const [{ shape, dtype }] = inputs;
    const total = inputs.reduce((n, x) => n + x.shape[axis], 0);
    if (
      inputs.some((x) =>
        x.dtype !== dtype || x.shape.length !== shape.length ||
        x.shape.some((n, i) => i !== axis && n !== shape[i])
      )
    ) {
      const shapes = inputs.map((x) => formatShape(x.shape)).join(" and ");
      throw new RangeError(`Cannot concatenate ${shapes} along axis ${axis}: other axes differ`);
    }
    return { shape: shape.with(axis, total), dtype };
  },
  reference({ inputs, attributes: { axis }, shape }, arrays, out) {
    const row = sizeOf(shape.slice(axis));
    let start = 0;
    inputs.forEach((x, k) => {
      const n = sizeOf(x.shape.slice(axis));
      for (let from = 0, to = start; from < arrays[k].length; from += n, to += row) {
        out.set(arrays[k].subarray(from, from + n), to);
      }
      start += n;
    });
  },
  gradient({ inputs, attributes: { axis } }, g) {
    let start = 0;
    return inputs.map((x) => {
      const part = slice(g, axis, start, x.shape[axis]);
      start += x.shape[axis];
      return part;
    });
  },
  halves: { reads: true, writes: true },
  cases: [
    {
      name: "channels",
      inputs: [{ shape: [3, 7, 13, 8] }, { shape: [3, 7, 13, 4] }],
      build: (...x) => concat(x, 3),
    },
    {
      name: "odd channels",
      inputs: [{ shape: [1, 7, 13, 5] }, { shape: [1, 7, 13, 1] }, { shape: [1, 7, 13, 2] }],
      build: (...x) => concat(x, 3),
    },
    { name: "rows", inputs: [{ shape: [2, 8] }, { shape: [3, 8] }], build: (...x) => concat(x, 0) },
    {
      name: "sums, in place, and other things",
      inputs: [{ shape: [3, 7, 8] }, { shape: [3, 1, 4] }, { shape: [3, 5, 4] }],
      build: (x, y, z) => concat([sum(x, [1]), add(y, 1), sum(z, [1]), y], 2),
    },
  ],
};

/** The tensors side by side along an axis; all other axes must agree. */
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  return inputs.length === 1 ? inputs[0] : apply(concatOp, inputs, { axis });
}

/** Where each tensor starts in a packed one. */
export interface Packing {
  /** Element at which each tensor starts, in order. */
  readonly offsets: readonly number[];
  /** Elements in all, gaps included. */
  readonly size: number;
}

/** The operation; gaps between the tensors are not written. */
export const packOp: Op<Packing> = {
  name: "pack",
  infer: (inputs, { size }) => ({ shape: [size], dtype: inputs[0].dtype }),
  reference: (node, arrays, out) =>
    arrays.forEach((x, i) => out.set(x, node.attributes.offsets[i])),
  gradient: ({ inputs, attributes: { offsets } }, g) =>
    inputs.map((x, i) => viewOf(g, offsets[i], x.shape)),
  cases: [{
    name: "two tensors and a gap, one of them twice",
    inputs: [{ shape: [3, 5] }, { shape: [64] }],
    build(x, y) {
      const twice = add(x, x);
      return pack([twice, y, twice], { offsets: [0, 64, 128], size: 192 });
    },
  }],
};

/** The tensors one behind the other. Gaps hold whatever the memory held: zeros, in fresh memory. */
export function pack(inputs: readonly Tensor[], packing: Packing): Tensor {
  return apply(packOp, inputs, packing);
}

/** Whether a tensor has elements that nothing writes, and that have to stay zero. */
export function hasGaps(tensor: Tensor): boolean {
  if (tensor.op !== packOp) return false;
  const { size } = tensor.attributes as Packing;
  return tensor.inputs.reduce((n, x) => n + sizeOf(x.shape), 0) < size;
}

/** The part of a flat tensor that starts at `offset`, under a shape. */
export function viewOf(flat: Tensor, offset: number, shape: Shape): Tensor {
  return reshape(slice(flat, 0, offset, sizeOf(shape)), shape);
}
