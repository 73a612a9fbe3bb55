/**
 * Operations that move no data: {@linkcode reshape}, {@linkcode permute}, {@linkcode slice},
 * {@linkcode broadcastTo} and {@linkcode stopGradient}.
 *
 * @module
 */

import { groupBy } from "../../ponyfills.ts";
import type { Op } from "../op.ts";
import {
  broadcastShapes,
  broadcastStrides,
  denseStrides,
  formatShape,
  reshapeStrides,
  sameShape,
  type Shape,
  sizeOf,
} from "../../shape.ts";
import { apply, constant, type HostArray, type Tensor } from "../tensor.ts";
import type { View } from "../view.ts";
import { concat, pack } from "./concat.ts";
import { add, mul } from "./map.ts";
import { sum, sumTo } from "./sum.ts";

/** Copies the elements that a view of a dense input selects. */
function copyView(node: Tensor, view: View, from: HostArray, out: HostArray): void {
  const rank = node.shape.length, at = new Array<number>(rank).fill(0);
  let index = view.offset;
  for (let i = 0; i < out.length; i++) {
    out[i] = from[index];
    for (let axis = rank - 1; axis >= 0; axis--) {
      index += view.strides[axis];
      if (++at[axis] < node.shape[axis]) break;
      index -= at[axis] * view.strides[axis];
      at[axis] = 0;
    }
  }
}

function viewOp<A>(op: Omit<Op<A>, "reference"> & { view: NonNullable<Op<A>["view"]> }): Op<A> {
  return {
    ...op,
    reference(node, [x], out) {
      const dense = { strides: denseStrides(node.inputs[0].shape), offset: 0 };
      copyView(node, op.view(node, dense)!, x, out);
    },
  };
}

const reshapeOp = viewOp<{ shape: Shape }>({
  name: "reshape",
  infer([x], { shape }) {
    if (sizeOf(shape) !== sizeOf(x.shape)) {
      throw new RangeError(
        `Cannot reshape ${formatShape(x.shape)} to ${formatShape(shape)}: ${
          sizeOf(x.shape)
        } elements are not ${sizeOf(shape)}`,
      );
    }
    return { shape, dtype: x.dtype };
  },
  view(node, { strides, offset }) {
    const kept = reshapeStrides(node.inputs[0].shape, strides, node.shape);
    return kept && { strides: kept, offset };
  },
  gradient: (node, g) => [reshape(g, node.inputs[0].shape)],
  cases: [
    { name: "split an axis", inputs: [{ shape: [3, 10] }], build: (x) => reshape(x, [3, 2, 5]) },
    {
      name: "of a permuted view",
      inputs: [{ shape: [3, 10] }],
      build: (x) => reshape(permute(x, [1, 0]), [5, 6]),
    },
    {
      name: "split and join axes of a part of a tensor",
      inputs: [{ shape: [4, 6, 10] }],
      build: (x) => reshape(slice(x, 2, 4, 6), [2, 12, 1, 2, 3]),
    },
  ],
});

/** The same elements in the same order under another shape. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : apply(reshapeOp, [x], { shape });
}

const permuteOp = viewOp<{ order: readonly number[] }>({
  name: "permute",
  infer([x], { order }) {
    if (order.length !== x.shape.length || new Set(order).size !== order.length) {
      throw new RangeError(`Cannot permute ${formatShape(x.shape)} by ${formatShape(order)}`);
    }
    return { shape: order.map((axis) => x.shape[axis]), dtype: x.dtype };
  },
  view: ({ attributes: { order } }, { strides, offset }) => ({
    strides: order.map((axis) => strides[axis]),
    offset,
  }),
  gradient: ({ attributes: { order } }, g) => [permute(g, order.map((_, i) => order.indexOf(i)))],
  cases: [{
    name: "rotate three axes",
    inputs: [{ shape: [2, 3, 5] }],
    build: (x) => permute(x, [1, 2, 0]),
  }],
});

/** Axis `i` of the result is axis `order[i]` of `x`. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const before = orderOf(x);
  if (before) return permute(x.inputs[0], order.map((axis) => before[axis]));
  return order.every((axis, i) => axis === i) ? x : apply(permuteOp, [x], { order });
}

/** The order in which a permuted tensor has the axes of its input. */
const orderOf = (x: Tensor): readonly number[] | undefined =>
  x.op === permuteOp ? (x.attributes as { order: readonly number[] }).order : undefined;

/** Whether the rows of a matrix, or of a batch of them, are the last axis of what it is a view of. */
export const isTransposed = (x: Tensor): boolean => orderOf(x)?.at(-2) === x.shape.length - 1;

/** Elements `start` to `start + length` of an axis. */
export interface Slice {
  readonly axis: number;
  readonly start: number;
  readonly length: number;
}

/** `x` with its last two axes exchanged. */
export function transpose(x: Tensor): Tensor {
  const n = x.shape.length;
  return permute(x, [...Array(n - 2).keys(), n - 1, n - 2]);
}

/** The operation; `grad.ts` joins the gradients of slices of the same tensor. */
export const sliceOp: Op<Slice> = viewOp<Slice>({
  name: "slice",
  infer([x], { axis, start, length }) {
    if (!(start >= 0 && length >= 1 && start + length <= x.shape[axis])) {
      throw new RangeError(
        `Cannot slice [${start}, ${start + length}) from axis ${axis} of ${formatShape(x.shape)}`,
      );
    }
    return { shape: x.shape.with(axis, length), dtype: x.dtype };
  },
  view: ({ attributes: { axis, start } }, { strides, offset }) => ({
    strides,
    offset: offset + start * strides[axis],
  }),
  gradient: ({ inputs: [x], attributes }, g) => [joinSlices(x.shape, [{ ...attributes, g }])],
  cases: [
    {
      name: "middle of an axis",
      inputs: [{ shape: [2, 7, 3] }],
      build: (x) => slice(x, 1, 2, 3),
    },
    {
      name: "end of the last axis",
      inputs: [{ shape: [3, 8] }],
      build: (x) => slice(x, 1, 4, 4),
    },
    {
      name: "several, of which some overlap",
      inputs: [{ shape: [3, 8] }],
      build: (x) =>
        mul(mul(slice(x, 1, 5, 2), slice(x, 1, 1, 2)), slice(slice(x, 1, 2, 3), 1, 1, 2)),
    },
    {
      name: "parts of a flat tensor, not all of it",
      inputs: [{ shape: [100] }],
      build: (x) => mul(reshape(slice(x, 0, 64, 36), [6, 6]), slice(x, 0, 0, 6)),
    },
  ],
});

/** Elements `start` to `start + length` of an axis. */
export function slice(x: Tensor, axis: number, start: number, length: number): Tensor {
  return length === x.shape[axis] ? x : apply(sliceOp, [x], { axis, start, length });
}

/** What a tensor is a slice of, and the element of the axis where it starts; itself, if of nothing. */
export function partOf(x: Tensor): { whole: Tensor; start: number } {
  if (x.op !== sliceOp) return { whole: x, start: 0 };
  return { whole: x.inputs[0], start: (x.attributes as Slice).start };
}

/**
 * The gradient of a tensor of which slices were used, `g` being theirs: side by side where they do
 * not overlap, zeros where there are none.
 */
export function joinSlices(shape: Shape, slices: readonly Part[]): Tensor {
  const byAxis = groupBy(slices, ({ axis }) => axis);
  const rows = [...byAxis.values()].flatMap(rowsOf);
  return rows.map((row) => joinRow(shape, row)).reduce((sum, joined) => add(sum, joined));
}

/** The gradient of a slice. */
type Part = Slice & { readonly g: Tensor };

/** Slices along one axis in as few rows as there can be without overlaps, each in order. */
function rowsOf(slices: readonly Part[]): Part[][] {
  const end = ({ start, length }: Slice) => start + length;
  const byEnd = slices.toSorted((a, b) => end(a) - end(b));
  const rowOf = new Map<Part, Part[]>(), rows: Part[][] = [], free: Part[][] = [];
  let passed = 0;
  for (const next of slices.toSorted((a, b) => a.start - b.start)) {
    while (end(byEnd[passed]) <= next.start) free.push(rowOf.get(byEnd[passed++])!);
    const row = free.pop() ?? [];
    if (!row.length) rows.push(row);
    row.push(next);
    rowOf.set(next, row);
  }
  return rows;
}

/** Slices that do not overlap, with zeros where there are none. */
function joinRow(shape: Shape, row: readonly Part[]): Tensor {
  const parts = row.map(({ g }) => g), { axis } = row[0], size = shape[axis];
  if (shape.length === 1) return pack(parts, { offsets: row.map(({ start }) => start), size });
  const zeros = (n: number) => n ? [broadcastTo(constant([0]), shape.with(axis, n))] : [];
  const ends = row.map(({ start, length }) => start + length);
  return concat([
    ...row.flatMap(({ start, g }, i) => [...zeros(start - (ends[i - 1] ?? 0)), g]),
    ...zeros(size - ends.at(-1)!),
  ], axis);
}

const broadcastOp = viewOp<{ shape: Shape }>({
  name: "broadcast",
  infer([x], { shape }) {
    if (!sameShape(broadcastShapes([x.shape, shape]), shape)) {
      throw new RangeError(
        `Cannot broadcast ${formatShape(x.shape)} to the smaller ${formatShape(shape)}`,
      );
    }
    return { shape, dtype: x.dtype };
  },
  view: (node, { strides, offset }) => ({
    strides: broadcastStrides(node.inputs[0].shape, strides, node.shape),
    offset,
  }),
  gradient: (node, g) => [sumTo(g, node.inputs[0].shape)],
  cases: [{
    name: "a row and a new axis",
    inputs: [{ shape: [1, 4] }],
    build: (x) => broadcastTo(x, [2, 3, 4]),
  }],
});

/** `x` repeated along axes where its size is 1 or that it lacks on the left. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : apply(broadcastOp, [x], { shape });
}

const afterOp = viewOp<Record<never, never>>({
  name: "after",
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  view: (_, input) => input,
  gradient: (_, g) => [g, undefined],
  cases: [{
    name: "a sum",
    inputs: [{ shape: [3, 5] }, { shape: [4] }],
    build: (x, y) => reshape(after(reshape(x, [5, 3]), sum(y)), [15]),
  }],
});

/**
 * The same tensor, but no part of what is equal: what is made of it is made again, and not before
 * `event`.
 */
export function after(x: Tensor, event: Tensor): Tensor {
  return apply(afterOp, [x, event], {});
}

/** The tensor itself, where it only waits for something. */
export const withoutWaiting = (x: Tensor): Tensor => x.op === afterOp ? x.inputs[0] : x;

const stopGradientOp = viewOp<Record<never, never>>({
  name: "stop_gradient",
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  view: (_, view) => view,
  gradient: () => [undefined],
  // Central differences would not agree with it, which is its purpose.
  cases: [{ name: "of a constant", inputs: [], build: () => stopGradient(constant([1, 2, 3])) }],
});

/** `x`, which gradients take for a constant. */
export function stopGradient(x: Tensor): Tensor {
  return apply(stopGradientOp, [x], {});
}

/** All operations of this file. */
export const viewOps: readonly Op[] = [
  ...[reshapeOp, permuteOp, sliceOp, broadcastOp, afterOp, stopGradientOp],
];
