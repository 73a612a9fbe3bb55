/**
 * Nearest rows of a table, {@linkcode nearestRow}: vector quantisation.
 *
 * @module
 */

import type { Op } from "../op.ts";
import { formatShape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerNearest as lowerOnCpu } from "../wasm/nearest.ts";
import {
  bind,
  bindInput,
  foldGrid,
  type Kernel,
  makeKernel,
  type WgslTarget,
} from "../wgsl/kernel.ts";
import { toFloat } from "./map.ts";

/** An invocation takes a row. Distances are kept nowhere: all of them would be `[n, rows]`. */
function lowerNearest(node: Tensor, target: WgslTarget): Kernel[] {
  const [x, table] = node.inputs, [n, width] = x.shape, { lanes } = target;
  const { grid, index } = foldGrid(Math.ceil(n / lanes));
  return [makeKernel({
    label: "nearest_row",
    bindings: [bindInput("x", x), bindInput("entries", table), bind("y", node, { write: true })],
    uniforms: { n, width, rows: table.shape[0] },
    lanes,
    body: `let i = ${index} * ${lanes}u + lane;
if (i >= u.n) { return; }
var least = 3.4028234e38f;
var found = 0u;
for (var row = 0u; row < u.rows; row++) {
  var sum = 0.0f;
  for (var c = 0u; c < u.width; c++) {
    let d = x[i * u.width + c] - entries[row * u.width + c];
    sum += d * d;
  }
  if (sum < least) { least = sum; found = row; }
}
y[i] = i32(found);`,
    workgroups: [1, ...grid],
  })];
}

const nearestOp: Op<Record<never, never>> = {
  name: "nearest_row",
  infer([x, table]) {
    if (x.shape.length !== 2 || table.shape.length !== 2 || x.shape[1] !== table.shape[1]) {
      throw new RangeError(
        `Cannot find the nearest of the rows of ${formatShape(table.shape)} to those of ` +
          formatShape(x.shape),
      );
    }
    if ([x, table].some(({ dtype }) => dtype !== "f32")) {
      throw new TypeError("Cannot find nearest rows of integers");
    }
    return { shape: [x.shape[0]], dtype: "i32" };
  },
  reference({ inputs: [{ shape: [n, width] }, { shape: [rows] }] }, [x, table], out) {
    for (let i = 0; i < n; i++) {
      let least = Infinity;
      for (let row = 0; row < rows; row++) {
        let sum = 0;
        for (let c = 0; c < width; c++) sum += (x[i * width + c] - table[row * width + c]) ** 2;
        if (sum < least) [least, out[i]] = [sum, row];
      }
    }
  },
  variants: [{ name: "loop", lower: lowerNearest }],
  wasm: lowerOnCpu,
  cases: [
    {
      name: "three channels",
      inputs: [{ shape: [35, 3] }, { shape: [32, 3] }],
      build: (x, table) => nearestRow(x, table),
    },
    {
      name: "one row, one channel, one entry",
      inputs: [{ shape: [1, 1] }, { shape: [1, 1] }],
      build: (x, table) => nearestRow(x, table),
    },
    {
      name: "equally near ones",
      inputs: [
        { shape: [70, 2], dtype: "i32", range: [-2, 2] },
        { shape: [40, 2], dtype: "i32", range: [-2, 2] },
      ],
      build: (x, table) => nearestRow(toFloat(x), toFloat(table)),
    },
    {
      name: "many of each",
      inputs: [{ shape: [1500, 5] }, { shape: [67, 5] }],
      build: (x, table) => nearestRow(x, table),
    },
  ],
};

/**
 * For each row of `x`, `[n, width]`, the number of the nearest row of a table `[rows, width]`: `i32`
 * `[n]`. Of equally near ones it is the first. There is no gradient.
 *
 * @throws {RangeError} If the shapes do not fit.
 */
export function nearestRow(x: Tensor, table: Tensor): Tensor {
  return apply(nearestOp, [x, table], {});
}

/** All operations of this file. */
export const nearestOps: readonly Op[] = [nearestOp];
