/**
 * Matrix products on the CPU: B is packed into panels, and tiles of rows meet panels. Packing comes
 * first, but where B is large and rows are so few that each panel is needed once.
 *
 * @module
 */

import type { Fused } from "../compile/loop.ts";
import { sizeOf } from "../../shape.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import { add, type Body, div, i32, type Local, mul, type Operand, rem } from "./assembler.ts";
import { Epilogue } from "./epilogue.ts";
import {
  emitPack,
  emitRows,
  type PackShape,
  panelBytes,
  panelWidth,
  TILE_ROWS,
  tileRegisters,
} from "./gemm.ts";
import { pointAt, pointFrom, pointTo, type WasmKernel, type WasmTarget } from "./kernel.ts";

/** Rows that a task takes at most: A's part of them stays in the second cache. */
const ROWS = 96;
/** Multiplications that make a task worth while. */
const TASK_WORK = 200_000;
/** Bytes of a packed B that is large. */
const LARGE = 1 << 20;

/** Splits a flat index over batch axes into a byte offset. */
export function batchOffset(
  f: Body,
  batch: Local,
  shape: readonly number[],
  strides: readonly number[],
): Operand {
  const rest = f.integer(batch);
  let offset: Operand = 0;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    offset = add(offset, mul(rem(rest, shape[axis]), 4 * strides[axis]));
    // Kept, since the next quotient changes what it is made of.
    offset = f.integer(offset);
    f.set(rest, div(rest, shape[axis]));
  }
  return offset;
}

/** The kernels of a product of the last two axes. */
export function lowerMatmul(node: Tensor, { pair }: WasmTarget, fused: Fused): WasmKernel[] {
  const [x, w] = node.inputs, [m, n] = node.shape.slice(-2), k = x.shape.at(-1)!;
  const batchShape = node.shape.slice(0, -2), batches = sizeOf(batchShape);
  const a = resolve(x), b = resolve(w), width = panelWidth(pair), panels = Math.ceil(n / width);
  const [aRow, aK] = a.strides.slice(-2).map((s) => 4 * s);
  const [bK, bN] = b.strides.slice(-2).map((s) => 4 * s);
  const pack: PackShape = {
    ...{ taps: [0], inner: k, innerStride: bK, columns: n, columnStride: bN },
  };
  const panel = panelBytes(pack, width), packed = new Scratch(batches * panels * panel / 4);
  const isPackedFirst = m > ROWS || 4 * packed.size < LARGE;
  const packing: WasmKernel = {
    label: "matmul, pack",
    key: `pack ${JSON.stringify([pack, width, batchShape, b.strides])}`,
    pointers: [pointTo(w), pointAt(packed)],
    tasks: batches * panels,
    scratch: 0,
    build(f, task, [from, to]) {
      const batch = f.integer(div(task, panels)), p = f.integer(rem(task, panels));
      const start = f.integer(add(from, batchOffset(f, batch, batchShape, b.strides)));
      emitPack(f, pack, width, start, p, add(to, mul(task, panel)));
    },
  };

  const rows = Math.min(m, ROWS), blocks = Math.ceil(m / rows), tail = m - (blocks - 1) * rows;
  const perPanel = rows * width * k;
  const group = Math.min(panels, Math.max(1, Math.ceil(TASK_WORK / perPanel)));
  const groups = Math.ceil(panels / group), ragged = n % width, cRow = 4 * n;
  const epilogue = new Epilogue(node, fused);
  const product: WasmKernel = {
    label: "matmul",
    key: `matmul ${
      JSON.stringify([m, n, k, batchShape, a.strides, isPackedFirst || b.strides, width])
    } ${epilogue.key}`,
    pointers: [
      ...[pointTo(x), isPackedFirst ? pointFrom(packed) : pointTo(w), pointAt(epilogue.target)],
      ...epilogue.pointers,
    ],
    tasks: batches * blocks * groups,
    scratch: isPackedFirst ? 0 : panel,
    build(f, task, [from, by, to, ...others], scratch) {
      const finish = epilogue.begin(f, to, others);
      finish.enterImage(0);
      const registers = tileRegisters(f, TILE_ROWS, width / 4);
      const batch = f.integer(div(task, blocks * groups)),
        place = f.integer(rem(task, blocks * groups));
      const block = f.integer(div(place, groups));
      const p = f.integer(mul(rem(place, groups), group)), end = f.integer(add(p, group));
      if (panels % group) f.if(i32.gt(end, panels), () => f.set(end, panels));
      const start = add(from, batchOffset(f, batch, batchShape, a.strides));
      const aStart = f.integer(add(start, mul(block, rows * aRow)));
      const cStart = f.integer(add(add(to, mul(batch, m * n * 4)), mul(block, rows * cRow)));
      const aAt = f.local("i32"), bAt = f.local("i32"), cAt = f.local("i32");
      const column = f.local("i32");
      const unpacked = isPackedFirst
        ? by
        : f.integer(add(by, batchOffset(f, batch, batchShape, b.strides)));
      f.loop(p, end, 1, () => {
        f.set(aAt, aStart);
        if (isPackedFirst) f.set(bAt, add(by, mul(add(mul(batch, panels), p), panel)));
        else {
          emitPack(f, pack, width, unpacked, p, scratch);
          f.set(bAt, scratch);
        }
        f.set(column, mul(p, 4 * width));
        f.set(cAt, add(cStart, column));
        const run = (count: number, columns: number) =>
          emitRows(
            f,
            count,
            {
              ...{ vectors: width / 4, aRow, aK, bK: 4 * width, cRow, columns },
              finish: (sum, offset, j) =>
                finish.apply(sum, cAt, offset, { address: column, offset: 16 * j }),
            },
            registers,
            {
              ...{ a: aAt, b: bAt, c: cAt, k },
            },
          );
        const panelOf = (columns: number) => {
          if (tail === rows) run(rows, columns);
          else f.if(i32.lt(block, blocks - 1), () => run(rows, columns), () => run(tail, columns));
        };
        if (!ragged) panelOf(width);
        else if (panels === 1) panelOf(ragged);
        else f.if(i32.lt(p, panels - 1), () => panelOf(width), () => panelOf(ragged));
      });
    },
  };
  return isPackedFirst ? [packing, product] : [product];
}
