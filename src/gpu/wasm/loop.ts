/**
 * Fused loop nests as WebAssembly: four or eight elements at a time along the innermost axis, sizes
 * and strides as constants. Sums are in `sum.ts`.
 *
 * @module
 */

import { type Axis, collapse, isSum, type Loop } from "../compile/loop.ts";
import type { Storage } from "../storage.ts";
import { add, div, i32, mul, rem } from "./assembler.ts";
import type { WasmKernel, WasmTarget } from "./kernel.ts";
import {
  isUnit,
  keyOf,
  loadOnce,
  makePorts,
  moveTo,
  ones,
  pointersInStep,
  read,
  TASK_ELEMENTS,
  walk,
  write,
} from "./loop_codegen.ts";
import { lowerSum } from "./sum.ts";
import { emitExpressions } from "./vector.ts";

/** The kernels that run a nest: one, or two where a sum is taken in parts. */
export function lowerLoop(loop: Loop<Storage>, target: WasmTarget): WasmKernel[] {
  return isSum(loop) ? lowerSum(loop) : [lowerMap(loop, target)];
}

function lowerMap(loop: Loop<Storage>, { pair }: WasmTarget): WasmKernel {
  const axes = collapse(loop);
  if (axes.length === 0) return flatKernel(loop, { size: 1, summed: false, strides: ones(loop) });
  if (axes.length === 1) return flatKernel(loop, axes[0]);
  const single = { size: 1, summed: false, strides: ones(loop) };
  return rowsKernel(loop, isUnit(loop, axes.at(-1)!) ? axes : [...axes, single], pair);
}

/** A nest of rows along the last axis. */
function rowsKernel(loop: Loop<Storage>, axes: readonly Axis[], pair: 1 | 2): WasmKernel {
  const ports = makePorts(loop, axes), inner = axes.at(-1)!, innermost = axes.length - 1;
  const outer = axes.slice(0, -1).map((a, index) => ({ ...a, index }));
  // Rows along the last of the outer axes are walked without decoding an index for each.
  const rowAxis = outer.at(-1), units = outer.slice(0, -1).reduce((n, a) => n * a.size, 1);
  const rows = rowAxis?.size ?? 1;
  const most = Math.max(1, Math.floor(TASK_ELEMENTS / inner.size));
  const chunk = Math.ceil(rows / Math.ceil(rows / most)), chunks = Math.ceil(rows / chunk);
  const each = Math.max(1, Math.floor(TASK_ELEMENTS / (chunk * inner.size)));
  const total = units * chunks, tasks = Math.ceil(total / each);
  // Two vectors at a time even where they are not fused: neighbouring streams disturb less.
  const vectors = inner.size >= 8 ? 2 : pair;
  const count = loop.operands.length;

  return {
    label: loop.label,
    key: `map ${keyOf(loop, ports, axes, vectors)}`,
    pointers: pointersInStep(loop),
    tasks,
    scratch: 0,
    build(f, task, bases) {
      const unit = f.integer(mul(task, each)), last = f.integer(add(unit, each));
      f.if(i32.gt(last, total), () => f.set(last, total));
      const addresses = bases.map(() => f.local("i32")), row = f.local("i32"), end = f.local("i32");
      f.loop(unit, last, 1, () => {
        moveTo(f, div(unit, chunks), outer.slice(0, -1), ports, bases, addresses);
        f.set(row, mul(rem(unit, chunks), chunk));
        f.set(end, add(row, chunk));
        if (rows % chunk) f.if(i32.gt(end, rows), () => f.set(end, rows));
        if (rowAxis) {
          addresses.forEach((address, k) => {
            const stride = ports[k].strides[rowAxis.index];
            if (stride) f.increase(address, mul(row, stride));
          });
        }
        f.loop(row, end, 1, () => {
          walk(f, inner.size, vectors, (bytes, width, isVector) => {
            const moving = (k: number) => ports[k].strides[innermost] !== 0;
            const at = addresses.map((address, k) =>
              moving(k) ? f.integer(add(address, bytes)) : address
            );
            const values = Array.from({ length: width }, (_, v) => {
              const load = loadOnce(f, (k, isWord) => {
                const vector = moving(k) && isVector;
                return read(ports[k], vector, at[k], moving(k) ? 16 * v : 0, isWord);
              });
              return emitExpressions(f, loop.results.map((r) => r.expression), load);
            });
            loop.results.forEach((_, r) => {
              const k = count + r;
              for (let v = 0; v < width; v++) {
                write(f, ports[k], isVector, at[k], 16 * v, values[v][r]);
              }
            });
          });
          if (rowAxis) {
            addresses.forEach((address, k) => {
              const stride = ports[k].strides[rowAxis.index];
              if (stride) f.increase(address, stride);
            });
          }
        });
      });
    },
  };
}

/** A single axis, a task for each part of it. */
function flatKernel(loop: Loop<Storage>, axis: Axis): WasmKernel {
  const ports = makePorts(loop, [axis]), count = loop.operands.length;
  const tasks = Math.ceil(axis.size / TASK_ELEMENTS), vectors = isUnit(loop, axis) ? 2 : 0;
  return {
    label: loop.label,
    key: `flat ${keyOf(loop, ports, [axis])}`,
    pointers: pointersInStep(loop),
    tasks,
    scratch: 0,
    build(f, task, bases) {
      const first = f.integer(mul(task, TASK_ELEMENTS)), end = f.integer(add(first, TASK_ELEMENTS));
      f.if(i32.gt(end, axis.size), () => f.set(end, axis.size));
      const addresses = bases.map((base, k) =>
        f.integer(add(base, mul(first, ports[k].strides[0])))
      );
      const step = (elements: number, isVector: boolean) => {
        const width = Math.max(1, elements / 4);
        const values = Array.from({ length: width }, (_, v) => {
          const load = loadOnce(f, (k, isWord) => {
            const isMoving = ports[k].strides[0] !== 0, offset = isMoving ? 16 * v : 0;
            return read(ports[k], isMoving && isVector, addresses[k], offset, isWord);
          });
          return emitExpressions(f, loop.results.map((r) => r.expression), load);
        });
        loop.results.forEach((_, r) => {
          for (let v = 0; v < width; v++) {
            write(f, ports[count + r], isVector, addresses[count + r], 16 * v, values[v][r]);
          }
        });
        addresses.forEach((address, k) => {
          if (ports[k].strides[0]) f.increase(address, ports[k].strides[0] * elements);
        });
      };
      if (vectors) {
        const whole = f.integer(i32.and(end, -4 * vectors));
        f.if(i32.lt(first, whole), () => {
          f.loop(first, whole, 4 * vectors, () => step(4 * vectors, true));
        });
      }
      f.if(i32.lt(first, end), () => f.loop(first, end, 1, () => step(1, false)));
    },
  };
}
