/**
 * Sums over axes of fused loop nests as WebAssembly.
 *
 * @module
 */

import { argument } from "../expression.ts";
import { type Axis, collapse, type Loop, splitAxis } from "../compile/loop.ts";
import { Scratch, type Storage } from "../storage.ts";
import {
  add,
  type Body,
  div,
  f32x4,
  i32,
  type Local,
  mul,
  type Operand,
  rem,
} from "./assembler.ts";
import type { WasmKernel } from "./kernel.ts";
import {
  isUnit,
  keyOf,
  loadOnce,
  makePorts,
  moveTo,
  ones,
  pointers,
  type Port,
  read,
  TASK_ELEMENTS,
  walk,
  write,
} from "./loop_codegen.ts";
import { emitExpressions, horizontal } from "./vector.ts";

/** Elements that are summed in a row before the sum is put aside. */
const MAX_SUM = 4096;

/** The kernels of a sum: one, or two where it is taken in parts. */
export function lowerSum(loop: Loop<Storage>): WasmKernel[] {
  let axes = collapse(loop);
  const isAcross = !axes.at(-1)!.summed && isUnit(loop, axes.at(-1)!);
  const isAlong = axes.at(-1)!.summed && isUnit(loop, axes.at(-1)!);
  // Columns are summed side by side; a row is summed along itself; all else element by element.
  if (!isAcross && !isAlong) axes = [...axes, { size: 1, summed: false, strides: ones(loop) }];
  if (isAlong && axes.length === 1 && axes[0].size > MAX_SUM) {
    const width = rowLength(axes[0].size);
    axes = splitAxis(axes[0], width);
  }
  const innermost = axes.length - 1, inner = axes[innermost];
  const indexed = axes.slice(0, -1).map((a, index) => ({ ...a, index }));
  const kept = indexed.filter((a) => !a.summed), summed = indexed.filter((a) => a.summed);
  const rows = kept.reduce((n, a) => n * a.size, 1);
  const [longest] = summed.toSorted((a, b) => b.size - a.size);
  const others = summed.filter((a) => a !== longest);
  const terms = others.reduce((n, a) => n * a.size, 1) * (isAlong ? inner.size : 1);

  // Vectors that one pass over the summed axes adds up side by side.
  const side = isAcross ? Math.min(4, Math.ceil(inner.size / 4)) : 1;
  const blocks = isAcross ? Math.ceil(inner.size / (4 * side)) : 1;
  const length = longest?.size ?? 1;
  const chunk = Math.max(1, Math.min(length, Math.floor(MAX_SUM / terms)));
  const parts = Math.ceil(length / chunk);
  const elements = rows * (isAcross ? inner.size : 1);
  const scratch = parts > 1 ? loop.results.map(() => new Scratch(parts * elements)) : undefined;
  const results = loop.results.map((r, i) =>
    scratch ? { ...r, storage: scratch[i], offset: 0 } : r
  );
  const nest = { ...loop, results };
  const ports = makePorts(nest, axes), count = loop.operands.length;

  const total = rows * blocks * parts;
  const cost = 4 * side * chunk * terms;
  const each = Math.max(1, Math.floor(TASK_ELEMENTS / cost));
  const kernel: WasmKernel = {
    label: loop.label,
    key: `sum ${keyOf(nest, ports, axes, parts, side)}`,
    pointers: pointers(nest),
    tasks: Math.ceil(total / each),
    scratch: 0,
    build(f, task, bases) {
      const unit = f.integer(mul(task, each)), last = f.integer(add(unit, each));
      f.if(i32.gt(last, total), () => f.set(last, total));
      const starts = bases.map(() => f.local("i32"));
      const sums = results.map(() => Array.from({ length: side }, () => f.local("v128")));
      f.loop(unit, last, 1, () => {
        const part = f.integer(rem(unit, parts)), place = f.integer(div(unit, parts));
        const block = f.integer(rem(place, blocks));
        moveTo(f, div(place, blocks), kept, ports, bases, starts);
        if (scratch) {
          for (let r = 0; r < results.length; r++) {
            f.increase(starts[count + r], mul(part, 4 * elements));
          }
        }
        const column = (vectors: number, isVector: boolean) => {
          sumColumns(f, {
            ...{ loop: nest, ports, longest, others, chunk, part, starts, sums, vectors, isVector },
            ...(isAlong ? { along: inner.size } : {}),
          });
          results.forEach((_, r) => {
            for (let v = 0; v < vectors; v++) {
              const value = isAlong ? horizontal(sums[r][v]) : sums[r][v];
              write(f, ports[count + r], isVector && !isAlong, starts[count + r], 16 * v, value);
            }
          });
        };
        if (!isAcross) return column(1, isAlong);
        const shift = (bytes: Operand) =>
          starts.forEach((start, k) => {
            if (ports[k].strides[innermost]) f.increase(start, bytes);
          });
        shift(mul(block, 16 * side));
        const full = Math.floor(inner.size / (4 * side));
        const tail = inner.size - full * 4 * side;
        const tails = () => {
          const vectors = Math.floor(tail / 4);
          if (vectors) {
            column(vectors, true);
            shift(16 * vectors);
          }
          for (let i = 0; i < tail % 4; i++) {
            column(1, false);
            shift(4);
          }
        };
        if (!tail) column(side, true);
        else if (!full) tails();
        else f.if(i32.lt(block, full), () => column(side, true), tails);
      });
    },
  };
  if (!scratch) return [kernel];
  const second: Loop<Storage> = {
    label: `${loop.label}, parts`,
    domain: [parts, elements],
    summed: [true, false],
    operands: scratch.map((storage) => ({ storage, strides: [elements, 1], offset: 0 })),
    results: loop.results.map((r, i) => ({ ...r, strides: [0, 1], expression: argument(i) })),
  };
  return [kernel, ...lowerSum(second)];
}

interface Columns {
  readonly loop: Loop<Storage>;
  readonly ports: readonly Port[];
  readonly longest: (Axis & { index: number }) | undefined;
  readonly others: readonly (Axis & { index: number })[];
  readonly chunk: number;
  readonly part: Local;
  readonly starts: readonly Local[];
  readonly sums: readonly (readonly Local[])[];
  readonly vectors: number;
  readonly isVector: boolean;
  /** Elements of the innermost axis, if it is summed. */
  readonly along?: number;
}

/** Adds up expressions over the summed axes, for some vectors side by side. */
function sumColumns(f: Body, c: Columns): void {
  const { loop, ports, longest, others, chunk, part, starts, sums, vectors, isVector, along } = c;
  const count = loop.operands.length, innermost = ports[0]?.strides.length - 1;
  for (const sum of sums) for (let v = 0; v < vectors; v++) f.set(sum[v], f.constant(0));
  const addresses = loop.operands.map((_, k) => f.integer(starts[k]));
  const accumulate = (at: readonly Operand[], width: number, isVector: boolean) => {
    for (let v = 0; v < width; v++) {
      const load = loadOnce(f, (k, isWord) => {
        const isMoving = ports[k].strides[innermost] !== 0;
        return read(ports[k], isMoving && isVector, at[k], isMoving ? 16 * v : 0, isWord);
      });
      const values = emitExpressions(f, loop.results.map((r) => r.expression), load);
      values.forEach((value, r) => f.set(sums[r][v], f32x4.add(sums[r][v], value)));
    }
  };
  const body = () => {
    if (along === undefined) return accumulate(addresses, vectors, isVector);
    walk(f, along, 1, (bytes, _, isVector) => {
      const at = addresses.map((a, k) =>
        ports[k].strides[innermost] ? f.integer(add(a, bytes)) : a
      );
      if (isVector) return accumulate(at, 1, true);
      // A rest of less than four elements counts in the first lane only.
      const before = sums.map(([sum]) => f.vector(sum));
      accumulate(at, 1, false);
      sums.forEach(([sum], r) => f.set(sum, firstLane(f, sum, before[r])));
    });
  };
  const nested = (axes: readonly (Axis & { index: number })[]): void => {
    const [axis, ...rest] = axes;
    if (!axis) return body();
    const i = f.integer(0);
    f.set(i, 0);
    f.loop(i, axis.size, 1, () => {
      nested(rest);
      moveBy(axis, 1);
    });
    moveBy(axis, -axis.size);
  };
  const moveBy = (axis: Axis & { index: number }, steps: number) =>
    addresses.forEach((address, k) => {
      const stride = ports[k].strides[axis.index];
      if (stride) f.increase(address, stride * steps);
    });
  if (!longest) return nested(others);
  const from = f.integer(mul(part, chunk)), to = f.integer(add(from, chunk));
  if (longest.size % chunk) f.if(i32.gt(to, longest.size), () => f.set(to, longest.size));
  addresses.forEach((address, k) => {
    const stride = ports[k].strides[longest.index];
    if (stride && k < count) f.increase(address, mul(from, stride));
  });
  f.loop(from, to, 1, () => {
    nested(others);
    moveBy(longest, 1);
  });
}

/** The first lane of one vector, and the others of another. */
const firstLane = (f: Body, first: Local, others: Local): Operand => {
  const lane = f32x4.lane(first, 0);
  const replaced = f.vector(others);
  f.set(replaced, f32x4.replaceLane(replaced, 0, lane));
  return replaced;
};

/** The longest divisor of n that is not longer than what is summed in a row. */
function rowLength(n: number): number {
  for (let length = Math.min(n, MAX_SUM); length > 64; length--) {
    if (n % length === 0) return length;
  }
  return 1;
}
