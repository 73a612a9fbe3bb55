/**
 * Nearest rows of a table on the CPU.
 *
 * @module
 */

import type { Tensor } from "../tensor.ts";
import { add, f32, i32, mul } from "./assembler.ts";
import { pointAt, pointTo, type WasmKernel } from "./kernel.ts";

/** Products that are worth a task. */
const WORK = 1 << 16;
/** The bits of infinity. */
const INFINITE = 0x7f800000;

/** Row by row all distances. */
export function lowerNearest(node: Tensor): WasmKernel[] {
  const [x, table] = node.inputs, [n, width] = x.shape, [rows] = table.shape;
  const each = Math.max(1, Math.floor(WORK / (rows * width)));
  return [{
    label: "nearest_row",
    key: `nearest ${n} ${width} ${rows}`,
    pointers: [pointTo(x), pointTo(table), pointAt(node)],
    tasks: Math.ceil(n / each),
    scratch: 16,
    build(f, task, [from, entries, to], scratch) {
      const i = f.integer(mul(task, each)), end = f.integer(add(i, each));
      if (n % each) f.if(i32.gt(end, n), () => f.set(end, n));
      const entry = f.local("i32"), at = f.local("i32"), least = f.local("i32");
      const found = f.local("i32"), sum = f.local("f32"), d = f.local("f32");
      f.loop(i, end, 1, () => {
        f.set(entry, entries);
        f.set(least, INFINITE);
        f.set(found, 0);
        f.repeat(rows, (row) => {
          f.set(at, add(from, mul(i, 4 * width)));
          f.set(sum, f32.const(0));
          f.repeat(width, () => {
            f.set(d, f32.sub(f32.load(at), f32.load(entry)));
            f.set(sum, f32.add(sum, f32.mul(d, d)));
            f.increase(at, 4);
            f.increase(entry, 4);
          });
          // As unsigned integers, what is not negative is in order, and NaN above all.
          f.storeFloat(scratch, 0, sum);
          f.if(i32.lt(i32.load(scratch), least), () => {
            f.set(least, i32.load(scratch));
            f.set(found, row);
          });
        });
        f.storeInteger(add(to, mul(i, 4)), 0, found);
      });
    },
  }];
}
