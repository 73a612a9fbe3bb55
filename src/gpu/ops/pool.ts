/**
 * Pooling of images `[batch, height, width, channels]` by windows that overlap: {@linkcode maxPool}
 * and {@linkcode averagePoolSame}. Both are elementwise functions of shifted views.
 *
 * @module
 */

import type { Window } from "../convolution.ts";
import * as e from "../expression.ts";
import { grad } from "../grad.ts";
import type { Op } from "../op.ts";
import { formatShape } from "../../shape.ts";
import { apply, constant, type Tensor } from "../tensor.ts";
import { concat } from "./concat.ts";
import { map, mul } from "./map.ts";
import { sum } from "./sum.ts";
import { broadcastTo, reshape, slice } from "./view.ts";

interface PoolAttributes extends Window {
  /** Pixels along a side of the window. */
  readonly size: number;
}

/** Pixels of the result along an axis, of which so many are padded before and after. */
const outLength = (length: number, before: number, after: number, size: number, stride: number) =>
  Math.floor((length + before + after - size) / stride) + 1;

/** Every `stride`th element of an axis from `first` on, `count` of them, as a view. */
function every(x: Tensor, axis: number, first: number, count: number, stride: number): Tensor {
  if (stride === 1) return slice(x, axis, first, count);
  // Whole groups of `stride` elements that begin before the first one, where they would end too late.
  const start = Math.min(first, x.shape[axis] - count * stride), { shape } = x;
  const part = slice(x, axis, start, count * stride);
  const groups = reshape(part, shape.toSpliced(axis, 1, count, stride));
  return reshape(slice(groups, axis + 1, first - start, 1), shape.with(axis, count));
}

/** The image with so many more pixels along an axis, those at its ends repeated or zeros. */
function pad(x: Tensor, axis: number, before: number, after: number, isRepeated: boolean): Tensor {
  const end = (at: number, count: number) => {
    const shape = x.shape.with(axis, count);
    return count ? [broadcastTo(isRepeated ? slice(x, axis, at, 1) : constant([0]), shape)] : [];
  };
  return concat([...end(0, before), x, ...end(x.shape[axis] - 1, after)], axis);
}

/** For each pixel of a window the image as it is seen there, row by row. */
function taps(x: Tensor, { size, stride, padding }: PoolAttributes, isRepeated: boolean): Tensor[] {
  const [top, bottom, left, right] = padding;
  const height = outLength(x.shape[1], top, bottom, size, stride);
  const width = outLength(x.shape[2], left, right, size, stride);
  const padded = pad(pad(x, 1, top, bottom, isRepeated), 2, left, right, isRepeated);
  return Array.from(
    { length: size ** 2 },
    (_, i) =>
      every(every(padded, 1, Math.floor(i / size), height, stride), 2, i % size, width, stride),
  );
}

/** Of equal values the first one is taken, as in PyTorch. */
const expand = (x: Tensor, attributes: PoolAttributes): Tensor =>
  // At the border a repeated pixel stands beside the one that it repeats, and cannot be larger.
  map(taps(x, attributes, true), (...values) => values.reduce((found, v) => e.max(v, found)));

const maxPoolOp: Op<PoolAttributes> = {
  name: "max_pool",
  infer([x], { size, stride, padding }) {
    if (x.shape.length !== 4) {
      throw new RangeError(
        `Cannot pool ${formatShape(x.shape)}: it must be [batch, height, width, channels]`,
      );
    }
    if (size < stride || padding.some((n) => n >= size)) {
      throw new RangeError(
        `Cannot pool by ${size} × ${size} pixels with stride ${stride} and padding ` +
          `${formatShape(padding)}: neither may be larger`,
      );
    }
    const [n, h, w, c] = x.shape, [top, bottom, left, right] = padding;
    const height = outLength(h, top, bottom, size, stride);
    return { shape: [n, height, outLength(w, left, right, size, stride), c] };
  },
  reference({ inputs: [{ shape: [, h, w] }], shape, attributes }, [x], out) {
    const { size, stride, padding: [top, , left] } = attributes,
      [, height, width, channels] = shape;
    out.forEach((_, i) => {
      const c = i % channels, pixel = Math.floor(i / channels);
      const row = Math.floor(pixel / width), n = Math.floor(row / height);
      const y0 = row % height * stride - top, x0 = pixel % width * stride - left;
      let largest = -Infinity;
      for (let y = Math.max(0, y0); y < Math.min(h, y0 + size); y++) {
        for (let at = Math.max(0, x0); at < Math.min(w, x0 + size); at++) {
          largest = Math.max(largest, x[((n * h + y) * w + at) * channels + c]);
        }
      }
      out[i] = largest;
    });
  },
  expand: ({ inputs: [x], attributes }) => expand(x, attributes),
  gradient: ({ inputs: [x], attributes }, g) => grad(sum(mul(expand(x, attributes), g)), [x]),
  cases: [
    {
      name: "3x3, stride 2, odd image",
      inputs: [{ shape: [3, 7, 13, 5] }],
      build: (x) => maxPool(x, 3, { stride: 2, padding: [0, 0, 0, 0] }),
    },
    {
      name: "3x3, stride 2, even image",
      inputs: [{ shape: [1, 8, 10, 8] }],
      build: (x) => maxPool(x, 3, { stride: 2, padding: [0, 0, 0, 0] }),
    },
    {
      name: "3x3, padded, of numbers below zero",
      inputs: [{ shape: [2, 5, 4, 4], range: [-9, -8] }],
      build: (x) => maxPool(x, 3, { stride: 1, padding: [1, 1, 1, 1] }),
    },
    {
      name: "3x3, stride 2, padded, one channel",
      inputs: [{ shape: [3, 7, 8, 1] }],
      build: (x) => maxPool(x, 3, { stride: 2, padding: [1, 1, 1, 1] }),
    },
    {
      name: "2x2 side by side",
      inputs: [{ shape: [1, 5, 6, 3] }],
      build: (x) => maxPool(x, 2, { stride: 2, padding: [0, 0, 0, 0] }),
    },
    {
      name: "4x4, stride 3, padded unevenly",
      inputs: [{ shape: [1, 9, 11, 4] }],
      build: (x) => maxPool(x, 4, { stride: 3, padding: [0, 3, 2, 1] }),
    },
  ],
};

/**
 * The largest value of each channel in windows of `size` × `size` pixels. What is padded is never the
 * largest.
 *
 * @param window `stride` is at most `size`, and what is padded less than it.
 * @throws {RangeError} If they are more, or `x` is no batch of images.
 */
export function maxPool(x: Tensor, size: number, { stride, padding }: Window): Tensor {
  return apply(maxPoolOp, [x], { size, stride, padding });
}

/**
 * The mean of the `size` × `size` pixels around each pixel, of those that are within the image: `SAME`
 * in TensorFlow, `count_include_pad=False` in PyTorch.
 *
 * @param size An odd number.
 */
export function averagePoolSame(x: Tensor, size: number): Tensor {
  const p = (size - 1) / 2, [, h, w] = x.shape;
  const views = taps(x, { size, stride: 1, padding: [p, p, p, p] }, false);
  const within = (at: number, length: number) => Math.min(length, at + p + 1) - Math.max(0, at - p);
  const shares = constant(
    Array.from(
      { length: h * w },
      (_, i) => 1 / (within(Math.floor(i / w), h) * within(i % w, w)),
    ),
    [1, h, w, 1],
  );
  return map(
    [shares, ...views],
    (share, ...all) => e.mul(share, all.reduce((a, b) => e.add(a, b))),
  );
}

/** All operations of this file. */
export const poolOps: readonly Op[] = [maxPoolOp];
