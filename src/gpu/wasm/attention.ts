/**
 * Attention on the CPU without a matrix of scores (the idea of FlashAttention, Dao et al. 2022): keys
 * and values are packed into panels first, then a task walks a block of queries over tiles of keys.
 * Scores of a tile stay in the first caches; sums so far are scaled when a larger score turns up
 * (Milakov and Gimelshein 2018).
 *
 * @module
 */

import { type AttentionSizes, attentionSizes } from "../attention_sizes.ts";
import { sizeOf } from "../../shape.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import {
  add,
  type Body,
  div,
  f32,
  f32x4,
  i32,
  load,
  type Local,
  mul,
  type Operand,
  rem,
} from "./assembler.ts";
import {
  emitPack,
  emitRows,
  type PackShape,
  panelBytes,
  panelWidth,
  storeColumns,
  TILE_ROWS,
  type TileRegisters,
  tileRegisters,
} from "./gemm.ts";
import { pointAt, pointFrom, pointTo, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { batchOffset } from "./matmul.ts";
import { emitZeros } from "./padded_rows.ts";
import { horizontal, vectorFunctions } from "./vector.ts";

/** Queries of a block at most, and keys of a tile: their scores fit the first cache. */
const QUERIES = 64, KEYS = 128;
/** Bytes of all scores from which on their matrix is slower than none. */
const LARGE = 2 << 20;
/** A score that is less than any other. */
const LEAST = -3.4028234e38;

/** Whether it pays: where scores are few, products share their work with those of the gradients. */
export const attentionPays = ({ inputs }: Tensor): boolean => {
  const { batch, queries, keys } = attentionSizes(inputs);
  return 4 * batch * queries * keys >= LARGE;
};

/** Queries of a block: as many as divide them evenly, if there is such a number. */
function blockOf(queries: number): number {
  if (queries <= QUERIES) return queries;
  for (let rows = QUERIES; 2 * rows > QUERIES; rows--) if (queries % rows === 0) return rows;
  return QUERIES - QUERIES % TILE_ROWS;
}

/** How the scratch memory of a task is laid out; bytes. */
interface Places {
  /** Scores, a row for each query. */
  readonly scoreRow: number;
  /** The largest score so far in all lanes, and sums of exponentials. */
  readonly most: number;
  readonly total: number;
  /** Weighted sums of values. */
  readonly sums: number;
  readonly sumRow: number;
  readonly end: number;
}

/** The kernels of attention: one packs the keys, one the values. */
export function lowerAttention(node: Tensor, { pair }: WasmTarget): WasmKernel[] {
  const sizes = attentionSizes(node.inputs), { batch, queries, keys, size, width } = sizes;
  const [q, k, v] = node.inputs, panel = panelWidth(pair);
  const batchShape = q.shape.slice(0, -2), from = resolve(q).strides;
  const byKey = packing("keys", k, panel, [size, 1], [keys, 0]);
  const byColumn = packing("values", v, panel, [keys, 0], [width, 1]);
  const rows = blockOf(queries), blocks = Math.ceil(queries / rows);
  const places = placesOf(rows, Math.min(KEYS, keys), byColumn.panels, panel);
  const attend: WasmKernel = {
    label: "attention",
    key: `attention ${JSON.stringify([sizes, batchShape, from, panel])}`,
    pointers: [pointTo(q), pointFrom(byKey.packed), pointFrom(byColumn.packed), pointAt(node)],
    tasks: batch * blocks,
    scratch: places.end,
    build(f, task, [q, k, v, y], scratch) {
      const b = f.integer(div(task, blocks)), block = f.integer(rem(task, blocks));
      const first = f.integer(mul(block, rows));
      const [qRow, qColumn] = from.slice(-2).map((s) => 4 * s);
      const start = add(add(q, batchOffset(f, b, batchShape, from)), mul(first, qRow));
      const at = {
        q: f.integer(start),
        k: f.integer(add(k, mul(b, byKey.panels * byKey.bytes))),
        v: f.integer(add(v, mul(b, byColumn.panels * byColumn.bytes))),
        query: f.integer(add(mul(b, queries), first)),
        ...{ y, scratch },
      };
      const registers = tileRegisters(f, TILE_ROWS, panel / 4);
      const walk = (count: number) =>
        emitBlock(
          f,
          { ...sizes, rows: count },
          places,
          at,
          registers,
          [qRow, qColumn],
          byColumn.bytes,
        );
      const tail = queries - (blocks - 1) * rows;
      if (tail === rows) walk(rows);
      else f.if(i32.lt(block, blocks - 1), () => walk(rows), () => walk(tail));
    },
  };
  return [byKey.kernel, byColumn.kernel, attend];
}

/**
 * A kernel that packs the matrices of `x`.
 *
 * @param inner Length of the sums in products with it, and whether they go along rows of `x`.
 * @param columns The same for the columns of the products.
 */
function packing(
  what: string,
  x: Tensor,
  width: number,
  [inner, innerAxis]: readonly [number, 0 | 1],
  [columns, columnAxis]: readonly [number, 0 | 1],
) {
  const { strides } = resolve(x), axes = strides.slice(-2).map((s) => 4 * s);
  const batchShape = x.shape.slice(0, -2), panels = Math.ceil(columns / width);
  const shape: PackShape = {
    ...{ taps: [0], inner, innerStride: axes[innerAxis] },
    ...{ columns, columnStride: axes[columnAxis] },
  };
  const bytes = panelBytes(shape, width), batch = sizeOf(batchShape);
  const packed = new Scratch(batch * panels * bytes / 4);
  const kernel: WasmKernel = {
    label: `attention, pack ${what}`,
    key: `pack ${JSON.stringify([shape, width, batchShape, strides])}`,
    pointers: [pointTo(x), pointAt(packed)],
    tasks: batch * panels,
    scratch: 0,
    build(f, task, [from, to]) {
      const b = f.integer(div(task, panels)), p = f.integer(rem(task, panels));
      const start = f.integer(add(from, batchOffset(f, b, batchShape, strides)));
      emitPack(f, shape, width, start, p, add(to, mul(task, bytes)));
    },
  };
  return { kernel, packed, panels, bytes };
}

function placesOf(rows: number, keys: number, panels: number, width: number): Places {
  const up = (n: number) => Math.ceil(n / width) * width;
  // A cache line more than a power of two, for the sets of a cache.
  const scoreRow = 4 * up(keys) + 64, sumRow = 4 * panels * width;
  const most = rows * scoreRow, total = most + 16 * rows, sums = total + 16 * rows;
  return { scoreRow, most, total, sums, sumRow, end: sums + rows * sumRow + 64 };
}

/** Where a block's operands are. */
interface Addresses {
  readonly q: Local;
  readonly k: Local;
  readonly v: Local;
  readonly y: Local;
  /** The number of its first query among those of all batches. */
  readonly query: Local;
  readonly scratch: Local;
}

type BlockSizes = AttentionSizes & { readonly rows: number };

/** Walks a block of queries over all keys. */
function emitBlock(
  f: Body,
  sizes: BlockSizes,
  places: Places,
  at: Addresses,
  registers: TileRegisters,
  [qRow, qColumn]: readonly [number, number],
  valuePanel: number,
): void {
  const { rows, keys, size } = sizes, { scoreRow, sumRow } = places;
  const vectors = registers.columns.length, panel = 4 * vectors;
  const { scratch } = at, row = f.local("i32"), a = f.local("i32"), c = f.local("i32");
  const sums = f.integer(add(scratch, places.sums)), most = f.integer(add(scratch, places.most));
  f.set(row, most);
  f.loop(row, add(most, 16 * rows), 16, () => f.store(row, 0, f.constant(LEAST)));
  emitZeros(f, add(scratch, places.total), 16 * rows);
  emitZeros(f, sums, rows * sumRow);
  const k = f.integer(at.k), v = f.integer(at.v), column = f.local("i32"), by = f.local("i32");
  const tile = (count: number) => {
    const columns = Math.ceil(count / panel) * panel;
    f.set(column, scratch);
    f.loop(column, add(scratch, 4 * columns), 4 * panel, () => {
      f.set(a, at.q);
      f.set(c, column);
      const shape = { vectors, aRow: qRow, aK: qColumn, bK: 4 * panel, cRow: scoreRow };
      emitRows(f, rows, shape, registers, { a, b: k, c, k: size });
      f.increase(k, 4 * panel * size);
    });
    emitSoftmax(f, sizes, places, scratch, count);
    f.set(by, v);
    f.set(column, sums);
    f.loop(column, add(sums, sumRow), 4 * panel, () => {
      f.set(a, scratch);
      f.set(c, column);
      const shape = { vectors, aRow: scoreRow, aK: 4, bK: 4 * panel, cRow: sumRow };
      const from = { a, b: by, c, k: count };
      emitRows(f, rows, { ...shape, accumulate: true }, registers, from);
      f.increase(by, valuePanel);
    });
    f.increase(v, 4 * panel * count);
  };
  const full = Math.floor(keys / KEYS), rest = keys % KEYS;
  if (full) f.repeat(full, () => tile(KEYS));
  if (rest) tile(rest);
  emitResult(f, sizes, places, at);
}

/** Makes exponentials of `count` scores of each query, and scales what there was before. */
function emitSoftmax(
  f: Body,
  { rows, size }: BlockSizes,
  { scoreRow, most, total, sums, sumRow }: Places,
  scratch: Local,
  count: number,
): void {
  const scale = f.constant(1 / Math.sqrt(size)), least = f.constant(LEAST);
  const at = f.integer(scratch), state = f.integer(add(scratch, most)), i = f.local("i32");
  const sum = f.integer(add(scratch, sums));
  const top = f.local("v128"), second = f.local("v128"), before = f.local("v128");
  const added = f.local("v128"), other = f.local("v128");
  const whole = Math.floor(count / 8) * 8, rest = count - whole;
  // Lanes beyond the last score count for nothing.
  if (rest % 4) {
    const last = 4 * (count - rest % 4);
    f.set(i, at);
    f.loop(i, add(at, rows * scoreRow), scoreRow, () => {
      for (let lane = rest % 4; lane < 4; lane++) f.storeLane(i, last + 4 * lane, least, 0);
    });
  }
  f.repeat(rows, () => {
    f.set(before, load(state));
    f.set(top, before);
    f.set(second, least);
    /** Visits vectors, by twos while they last. */
    const walk = (visit: (offsets: readonly number[]) => void) => {
      if (whole) {
        f.set(i, at);
        f.loop(i, add(at, 4 * whole), 32, () => visit([0, 16]));
      }
      if (!rest) return;
      f.set(i, add(at, 4 * whole));
      visit(rest > 4 ? [0, 16] : [0]);
    };
    walk((offsets) =>
      offsets.forEach((offset, n) => {
        const largest = n ? second : top;
        f.set(largest, f32x4.max(largest, load(i, offset)));
      })
    );
    f.set(top, f32x4.max(top, second));
    const largest = [1, 2, 3].reduce<Operand>(
      (most, lane) => f32.max(most, f32x4.lane(top, lane)),
      f32x4.lane(top, 0),
    );
    f.set(top, f32x4.splat(largest));
    f.store(state, 0, top);
    f.set(added, f.constant(0));
    f.set(other, f.constant(0));
    const power = (score: Operand) =>
      vectorFunctions.exp(f, f32x4.mul(f32x4.sub(score, top), scale));
    walk((offsets) => {
      const powers = offsets.map((offset) => f.vector(power(load(i, offset))));
      powers.forEach((power, n) => f.store(i, offsets[n], power));
      powers.forEach((power, n) => {
        const into = n ? other : added;
        f.set(into, f32x4.add(into, power));
      });
    });
    const decay = f.vector(power(before));
    f.set(added, f32x4.add(added, other));
    f.store(state, total - most, f32x4.madd(load(state, total - most), decay, added));
    f.set(i, sum);
    f.loop(i, add(sum, sumRow), 16, () => f.store(i, 0, f32x4.mul(load(i), decay)));
    f.increase(at, scoreRow);
    f.increase(sum, sumRow);
    f.increase(state, 16);
  });
}

/** Divides by the sums of exponentials, and stores the result. */
function emitResult(
  f: Body,
  { rows, width }: BlockSizes,
  { most, total, sums, sumRow }: Places,
  { y, query, scratch }: Addresses,
): void {
  const state = f.integer(add(scratch, most)), from = f.integer(add(scratch, sums));
  const to = f.integer(add(y, mul(query, 4 * width))), i = f.local("i32");
  const sum = f.local("v128"), share = f.local("v128");
  const whole = Math.floor(width / 4) * 16, rest = width % 4;
  f.repeat(rows, () => {
    f.set(sum, load(state, total - most));
    f.set(share, f32x4.div(f.constant(1), horizontal(sum)));
    const move = (address: Operand, count: number) =>
      storeColumns(f, add(to, address), 0, f32x4.mul(load(add(from, address)), share), count);
    f.set(i, 0);
    if (whole) f.loop(i, whole, 16, () => move(i, 4));
    if (rest) move(whole, rest);
    f.increase(from, sumRow);
    f.increase(to, 4 * width);
    f.increase(state, 16);
  });
}
