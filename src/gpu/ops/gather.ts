/**
 * Rows of a table by index, {@linkcode gather}: embeddings, and schedules by timestep.
 *
 * @module
 */

import type { Op } from "../op.ts";
import { formatShape, sizeOf } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import {
  lowerGather as gatherOnCpu,
  lowerScatter as scatterOnCpu,
} from "../wasm/softmax_gather_random.ts";
import { bind, bindInput, type Kernel, makeKernel, type WgslTarget } from "../wgsl/kernel.ts";

function lowerGather(node: Tensor, target: WgslTarget): Kernel[] {
  const [table, index] = node.inputs, width = node.shape[1], size = sizeOf(node.shape);
  return [makeKernel({
    label: "gather",
    bindings: [
      bindInput("table", table),
      bindInput("index", index),
      bind("y", node, { write: true }),
    ],
    uniforms: { width, size, last: table.shape[0] - 1 },
    lanes: target.lanes,
    body: `let first = group.x * ${target.lanes * 64}u + lane;
for (var i = first; i < min(first + ${target.lanes * 64}u, u.size); i += ${target.lanes}u) {
  let row = min(u32(max(index[i / u.width], 0i)), u.last);
  y[i] = table[row * u.width + i % u.width];
}`,
    workgroups: [Math.ceil(size / (target.lanes * 64)), 1, 1],
  })];
}

const gatherOp: Op<Record<never, never>> = {
  name: "gather",
  infer([table, index]) {
    if (table.shape.length !== 2 || index.shape.length !== 1) {
      throw new RangeError(
        `Cannot gather rows of ${formatShape(table.shape)} by indices ${formatShape(index.shape)}`,
      );
    }
    if (index.dtype !== "i32") throw new TypeError("Cannot gather: indices must be i32");
    return { shape: [index.shape[0], table.shape[1]] };
  },
  reference({ inputs: [t], shape: [, width] }, [table, index], out) {
    const last = t.shape[0] - 1;
    index.forEach((row, i) => {
      const start = Math.min(Math.max(row, 0), last) * width;
      out.set(table.subarray(start, start + width), i * width);
    });
  },
  gradient: ({ inputs: [table, index] }, g, needed) => [
    needed[0] ? apply(scatterOp, [g, index], { rows: table.shape[0] }) : undefined,
    undefined,
  ],
  variants: [{ name: "element", lower: lowerGather }],
  wasm: gatherOnCpu,
  cases: [
    {
      name: "rows, one of them twice",
      inputs: [{ shape: [5, 7] }, { shape: [9], dtype: "i32", range: [0, 4] }],
      build: (table, index) => gather(table, index),
    },
  ],
};

/** Every element walks the indices in order, so that the sum does not depend on timing. */
function lowerScatter(node: Tensor, target: WgslTarget): Kernel[] {
  const [g, index] = node.inputs, [, width] = node.shape, size = sizeOf(node.shape);
  return [makeKernel({
    label: "scatter_sum",
    bindings: [bindInput("g", g), bindInput("index", index), bind("y", node, { write: true })],
    uniforms: { width, size, count: index.shape[0], last: node.shape[0] - 1 },
    lanes: target.lanes,
    body: `let i = group.x * ${target.lanes}u + lane;
if (i >= u.size) { return; }
var sum = 0.0f;
for (var n = 0u; n < u.count; n++) {
  let row = min(u32(max(index[n], 0i)), u.last);
  if (row == i / u.width) { sum += g[n * u.width + i % u.width]; }
}
y[i] = sum;`,
    workgroups: [Math.ceil(size / target.lanes), 1, 1],
  })];
}

const scatterOp: Op<{ rows: number }> = {
  name: "scatter_sum",
  infer: ([g], { rows }) => ({ shape: [rows, g.shape[1]] }),
  reference({ shape: [rows, width] }, [g, index], out) {
    index.forEach((row, n) => {
      const start = Math.min(Math.max(row, 0), rows - 1) * width;
      for (let i = 0; i < width; i++) out[start + i] += g[n * width + i];
    });
  },
  gradient: ({ inputs: [, index] }, gg) => [gather(gg, index), undefined],
  variants: [{ name: "element", lower: lowerScatter }],
  wasm: scatterOnCpu,
  cases: [{
    name: "rows, one of them twice",
    inputs: [{ shape: [9, 7] }, { shape: [9], dtype: "i32", range: [0, 4] }],
    build: (g, index) => apply(scatterOp, [g, index], { rows: 5 }),
  }],
};

/** Rows of a `[rows, width]` table, `[n, width]`; indices out of range count as the nearest. */
export function gather(table: Tensor, index: Tensor): Tensor {
  return apply(gatherOp, [table, index], {});
}

/** All operations of this file. */
export const gatherOps: readonly Op[] = [gatherOp, scatterOp];
