/**
 * Matrix products in registers. A tile of 6 rows and 2 vectors uses all 15 vector registers there
 * are: 12 sums, 2 of B, 1 of A. Strides are constants, so that one pointer serves all rows.
 *
 * @module
 */

import { emitZeros } from "./padded_rows.ts";
import {
  add,
  type Body,
  f32x4,
  i32,
  load,
  loadSplat,
  type Local,
  mul,
  type Operand,
  sub,
} from "./assembler.ts";

/** Rows of a full tile. */
export const TILE_ROWS = 6;

/** Columns of a panel of packed B: the width of a tile. */
export const panelWidth = (pair: 1 | 2): number => 8 * pair;

/** How a tile walks its operands; strides in bytes. */
export interface TileShape {
  readonly rows: number;
  /** Vectors of four columns. */
  readonly vectors: number;
  /** Of A, between rows and between k. */
  readonly aRow: number;
  readonly aK: number;
  /** Of B, between k. */
  readonly bK: number;
  /** Of C, between rows. */
  readonly cRow: number;
  /** Columns of C that exist, if the last ones do not. */
  readonly columns?: number;
  /** Whether the product is added to what is there. */
  readonly accumulate?: boolean;
  /** The address of four numbers for each vector that sums start with. */
  readonly bias?: Operand;
  /** What is stored instead of the sums at C's address plus an offset, in vector `j`. */
  readonly finish?: (sum: Operand, offset: number, j: number) => Operand;
  /** k falls into this many runs, after each of which A and B move on by so many bytes. */
  readonly runs?: { readonly count: Operand; readonly aSkip: number; readonly bSkip: number };
}

/** Variables that tiles share. */
export interface TileRegisters {
  readonly a: Local;
  readonly b: Local;
  readonly end: Local;
  readonly run: Local;
  readonly splat: Local;
  readonly sums: readonly Local[];
  readonly columns: readonly Local[];
}

/** Variables for tiles of up to `rows` × `vectors`. */
export const tileRegisters = (f: Body, rows: number, vectors: number): TileRegisters => ({
  a: f.local("i32"),
  b: f.local("i32"),
  end: f.local("i32"),
  run: f.local("i32"),
  splat: f.local("v128"),
  sums: Array.from({ length: rows * vectors }, () => f.local("v128")),
  columns: Array.from({ length: vectors }, () => f.local("v128")),
});

/** Emits C[rows, 4 vectors] = A[rows, k] B[k, 4 vectors]; a constant k of 4n is unrolled by four. */
export function emitTile(
  f: Body,
  shape: TileShape,
  { a, b, end, run, splat, sums, columns }: TileRegisters,
  from: { readonly a: Operand; readonly b: Operand; readonly c: Operand; readonly k: number },
): void {
  const { rows, vectors, aRow, aK, bK, cRow, runs } = shape;
  const unroll = [4, 3, 2, 1].find((u) => from.k % u === 0)!;
  f.set(a, from.a);
  f.set(b, from.b);
  const each = (visit: (i: number, j: number, sum: Local) => void) => {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < vectors; j++) visit(i, j, sums[i * vectors + j]);
    }
  };
  each((i, j, sum) => {
    const start = shape.accumulate
      ? load(from.c, i * cRow + 16 * j)
      : shape.bias === undefined
      ? f.constant(0)
      : load(shape.bias, 16 * j);
    f.set(sum, start);
  });
  const steps = () => {
    f.set(end, add(b, from.k * bK));
    f.doWhile(() => {
      for (let u = 0; u < unroll; u++) {
        for (let j = 0; j < vectors; j++) f.set(columns[j], load(b, u * bK + 16 * j));
        for (let i = 0; i < rows; i++) {
          f.set(splat, loadSplat(a, u * aK + i * aRow));
          for (let j = 0; j < vectors; j++) {
            const sum = sums[i * vectors + j];
            f.set(sum, f32x4.madd(splat, columns[j], sum));
          }
        }
      }
      f.increase(a, unroll * aK);
      f.increase(b, unroll * bK);
    }, () => i32.lt(b, end));
  };
  if (!runs) steps();
  else {
    f.set(run, runs.count);
    f.doWhile(() => {
      steps();
      f.increase(a, runs.aSkip);
      f.increase(b, runs.bSkip);
      f.set(run, sub(run, 1));
    }, () => run);
  }
  for (let i = 0; i < rows; i++) {
    const offset = (j: number) => i * cRow + 16 * j;
    // V8 pairs loads only if nothing is stored between them.
    const finished = sums.slice(i * vectors, (i + 1) * vectors).map((sum, j) => {
      const value = shape.finish?.(sum, offset(j), j) ?? sum;
      if (value === sum) return sum;
      f.set(columns[j], value);
      return columns[j];
    });
    finished.forEach((value, j) =>
      storeColumns(f, from.c, offset(j), value, (shape.columns ?? 4 * vectors) - 4 * j)
    );
  }
}

/** Stores the first `count` elements of a vector. */
export function storeColumns(
  f: Body,
  address: Operand,
  offset: number,
  value: Operand,
  count: number,
): void {
  if (count >= 4) f.store(address, offset, value);
  else for (let i = 0; i < count; i++) f.storeLane(address, offset + 4 * i, value, i);
}

/** Emits a product of `rows` rows by tiles of nearly equal height, given how to reach a row. */
export function emitRows(
  f: Body,
  rows: number,
  shape: Omit<TileShape, "rows">,
  registers: TileRegisters,
  from: { readonly a: Local; readonly b: Operand; readonly c: Local; readonly k: number },
): void {
  // Two tiles of four rows are faster than one of six and one of two.
  const tiles = Math.ceil(rows / TILE_ROWS), low = Math.floor(rows / tiles), high = rows % tiles;
  const repeat = (count: number, rows: number) => {
    if (!count) return;
    f.repeat(count, () => {
      emitTile(f, { ...shape, rows }, registers, from);
      f.increase(from.a, rows * shape.aRow);
      f.increase(from.c, rows * shape.cRow);
    });
  };
  repeat(high, low + 1);
  repeat(tiles - high, low);
}

/** Where the elements of B lie that are to be packed; strides in bytes. */
export interface PackShape {
  /** k = tap · inner + i lies at `taps[tap] + i · innerStride`, or is zero. */
  readonly taps: readonly (number | undefined)[];
  readonly inner: number;
  readonly innerStride: number;
  readonly columns: number;
  readonly columnStride: number;
}

/** Bytes of a packed panel. */
export const panelBytes = ({ taps, inner }: PackShape, width: number): number =>
  4 * width * taps.length * inner;

/** Packs a panel of B as [k][width]; columns that do not exist become zeros. */
export function emitPack(
  f: Body,
  shape: PackShape,
  width: number,
  b: Operand,
  panel: Local,
  packed: Operand,
): void {
  const { taps, inner, innerStride, columns, columnStride } = shape;
  const from = f.local("i32"), to = f.integer(packed), i = f.local("i32");
  const start = f.integer(add(b, mul(panel, width * columnStride)));
  const ragged = columns % width, last = Math.floor(columns / width);
  const row = (count: number) => {
    for (let v = 0; v < width; v += 4) {
      if (columnStride === 4 && v + 4 <= count) f.store(to, 4 * v, load(from, 4 * v));
      else {
        for (let c = v; c < v + 4; c++) {
          if (c < count) f.storeInteger(to, 4 * c, i32.load(from, c * columnStride));
          else f.storeInteger(to, 4 * c, 0);
        }
      }
    }
    f.increase(from, innerStride);
    f.increase(to, 4 * width);
  };
  const all = (count: number) => {
    for (const tap of taps) {
      if (tap === undefined) {
        emitZeros(f, to, 4 * width * inner);
        f.increase(to, 4 * width * inner);
        continue;
      }
      f.set(from, add(start, tap));
      f.set(i, 0);
      f.loop(i, inner, 1, () => row(count));
    }
  };
  if (!ragged) all(width);
  else if (!last) all(ragged);
  else f.if(i32.lt(panel, last), () => all(width), () => all(ragged));
}
