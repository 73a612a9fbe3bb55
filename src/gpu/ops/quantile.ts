/**
 * Order statistics: {@linkcode quantile}, and the two sorted values that it lies between.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Op } from "../op.ts";
import { formatShape, sizeOf } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerNeighbours as lowerOnCpu } from "../wasm/quantile.ts";
import {
  bind,
  bindInput,
  foldGrid,
  type Kernel,
  load,
  makeKernel,
  type WgslTarget,
} from "../wgsl/kernel.ts";
import { add, div, map, mul } from "./map.ts";
import { sum } from "./sum.ts";
import { slice } from "./view.ts";

interface NeighbourAttributes {
  /** How many values of the row come before the first of the two. */
  readonly rank: number;
}

/** Invocations of a workgroup, and bins of a histogram: one a value of a byte. */
const BINS = 256;

/** Keys order like floats when compared as unsigned integers; NaN is the largest. */
const KEYS = /* wgsl */ `
fn key_of(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let key = bits ^ select(0x80000000u, 0xffffffffu, bits >> 31u == 1u);
  return select(key, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
}
fn bits_of(key: u32) -> u32 { return key ^ select(0xffffffffu, 0x80000000u, key >> 31u == 1u); }
var<workgroup> counts: array<atomic<u32>, ${BINS}>;
var<workgroup> found: u32;
var<workgroup> before: u32;
var<workgroup> above: atomic<u32>;
var<workgroup> has_nan: atomic<u32>;`;

/**
 * A workgroup takes a row: a radix select finds the key of the first value byte by byte, each time by
 * a histogram of the keys that agree so far; then the next larger key is found.
 */
function lowerNeighbours(node: Tensor<NeighbourAttributes>, _: WgslTarget): Kernel[] {
  const [x] = node.inputs, width = x.shape.at(-1)!, rows = sizeOf(x.shape) / width;
  const values = bindInput("x", x), y = bind("y", node, { write: true });
  const { grid, index } = foldGrid(rows);
  const walk = (line: string) =>
    `for (var i = lane; i < u.width; i += ${BINS}u) {
  let key = key_of(${load(values, "row * u.width + i")});
  ${line}
}`;
  return [makeKernel({
    label: "quantile",
    bindings: [values, y],
    uniforms: { rows, width, rank: node.attributes.rank },
    functions: KEYS,
    lanes: BINS,
    body: `let row = ${index};
if (row >= u.rows) { return; }
if (lane == 0u) { before = u.rank; atomicStore(&above, 0xffffffffu); }
var mask = 0u;
for (var shift = 32u; shift > 0u;) {
  shift -= 8u;
  atomicStore(&counts[lane], 0u);
  workgroupBarrier();
  let known = found;
  ${walk("if (((key ^ known) & mask) == 0u) { atomicAdd(&counts[key >> shift & 255u], 1u); }")}
  workgroupBarrier();
  if (lane == 0u) {
    var bin = 0u;
    var count = atomicLoad(&counts[0]);
    while (bin < 255u && before >= count) {
      before -= count;
      bin++;
      count = atomicLoad(&counts[bin]);
    }
    found |= bin << shift;
    // The next value is the same one if there are more of it.
    if (shift == 0u && before + 1u < count) { atomicStore(&above, found); }
  }
  mask |= 255u << shift;
}
workgroupBarrier();
let first = found;
var next = 0xffffffffu;
${
      walk(
        "if (key > first) { next = min(next, key); } if (key == 0xffffffffu) { atomicStore(&has_nan, 1u); }",
      )
    }
atomicMin(&above, next);
workgroupBarrier();
if (lane == 0u) {
  let last = atomicLoad(&above);
  let isNan = atomicLoad(&has_nan) == 1u;
  y[row * 2u] = bitcast<f32>(select(bits_of(first), 0x7fc00000u, isNan));
  y[row * 2u + 1u] = bitcast<f32>(select(bits_of(select(last, first, last == 0xffffffffu)), 0x7fc00000u, isNan));
}`,
    workgroups: [1, ...grid],
  })];
}

/**
 * Of each row along the last axis, the values that `rank` and `rank + 1` others come before when it
 * is sorted, twice the largest if there is no other: `[..., 2]`. A row with a NaN gives NaN, as in
 * PyTorch.
 */
const neighboursOp: Op<NeighbourAttributes> = {
  name: "quantile",
  infer: ([x], { rank }) => {
    const width = x.shape.at(-1) ?? 0;
    if (!(Number.isInteger(rank) && rank >= 0 && rank < width)) {
      throw new RangeError(`Cannot take value ${rank} in order of ${formatShape(x.shape)}`);
    }
    if (x.dtype !== "f32") throw new TypeError("Cannot take a quantile of integers");
    return { shape: x.shape.with(-1, 2) };
  },
  reference({ inputs: [{ shape }], attributes: { rank } }, [x], out) {
    const width = shape.at(-1)!;
    for (let row = 0; row * width < x.length; row++) {
      // NaN comes last.
      const sorted = x.slice(row * width, (row + 1) * width).sort();
      const isNan = Number.isNaN(sorted[width - 1]);
      for (const i of [0, 1]) {
        out[2 * row + i] = isNan ? NaN : sorted[Math.min(rank + i, width - 1)];
      }
    }
  },
  /** To the elements that have the value, in equal parts. */
  gradient(node, g) {
    const [x] = node.inputs, axis = x.shape.length - 1;
    const [first, second] = [0, 1].map((i) => {
      const value = slice(node, axis, i, 1);
      const has = map([x, value], (x, v) => e.sub(e.sub(1, e.less(x, v)), e.less(v, x)));
      return mul(has, div(slice(g, axis, i, 1), sum(has, [axis])));
    });
    return [add(first, second)];
  },
  variants: [{ name: "radix select", lower: lowerNeighbours }],
  halves: { reads: true, writes: false },
  wasm: lowerOnCpu,
  cases: [
    { name: "a row", inputs: [{ shape: [1, 7] }], build: (x) => quantile(x, 0.3) },
    { name: "one value", inputs: [{ shape: [3, 1] }], build: (x) => quantile(x, 0.995) },
    { name: "two values", inputs: [{ shape: [3, 2] }], build: (x) => quantile(x, 0.5) },
    { name: "the smallest", inputs: [{ shape: [3, 5, 13] }], build: (x) => quantile(x, 0) },
    { name: "the largest", inputs: [{ shape: [1, 13] }], build: (x) => quantile(x, 1) },
    {
      name: "many rows",
      inputs: [{ shape: [70, 4, 33], range: [-1e3, 1e3] }],
      build: (x) => quantile(x, 0.9),
    },
    { name: "images", inputs: [{ shape: [3, 3072] }], build: (x) => quantile(x, 0.995) },
    {
      name: "equal values",
      inputs: [{ shape: [3, 300], dtype: "i32", range: [-2, 2] }],
      build: (x) => quantile(map([x], (x) => e.mul(x, 0.5)), 0.7),
    },
    { name: "a long row", inputs: [{ shape: [1, 200_003] }], build: (x) => quantile(x, 0.995) },
  ],
};

/**
 * The quantile of each row along the last axis, which keeps a size of 1: linear between neighbours,
 * like `torch.quantile`.
 *
 * @param ratio From 0, the smallest value, to 1, the largest.
 */
export function quantile(x: Tensor, ratio: number): Tensor {
  const axis = x.shape.length - 1, place = ratio * (x.shape[axis] - 1);
  const rank = Math.floor(place), share = place - rank;
  const both = apply(neighboursOp, [x], { rank });
  const [low, high] = [0, 1].map((i) => slice(both, axis, i, 1));
  // Between equal values, which may be infinite, is nothing.
  return map(
    [low, high],
    (a, b) => e.select(e.less(a, b), e.add(e.mul(a, 1 - share), e.mul(b, share)), a),
  );
}

/** All operations of this file. */
export const quantileOps: readonly Op[] = [neighboursOp];
