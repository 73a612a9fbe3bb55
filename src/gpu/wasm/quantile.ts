/**
 * Order statistics of rows on the CPU, by a radix select.
 *
 * @module
 */

import { sizeOf } from "../../shape.ts";
import type { Tensor } from "../tensor.ts";
import { add, type Body, i32, type Local, mul, sub } from "./assembler.ts";
import { pointAt, pointTo, type WasmKernel } from "./kernel.ts";

/** Bytes of a histogram of bytes. */
const HISTOGRAM = 4 * 256;
const SIGN = 0x80000000 | 0, NAN = 0x7fc00000, LARGEST = -1;

/** Walks a row by keys, which order like floats when compared as unsigned integers; NaN is the largest. */
function eachKey(f: Body, begin: Local, bytes: number, body: (key: Local) => void): void {
  const at = f.integer(begin), end = f.integer(add(begin, bytes));
  const bits = f.local("i32"), key = f.local("i32");
  f.loop(at, end, 4, () => {
    f.set(bits, i32.load(at));
    f.set(key, i32.xor(bits, i32.or(sub(0, i32.shr(bits, 31)), SIGN)));
    f.if(i32.gt(i32.and(bits, 0x7fffffff), 0x7f800000), () => f.set(key, LARGEST));
    body(key);
  });
}

/** The float of a key. */
const bitsOf = (key: Local) => i32.xor(key, i32.or(sub(i32.shr(key, 31), 1), SIGN));

/**
 * A task takes a row: the key of the first value is found byte by byte, each time by a histogram of
 * the keys that agree so far; then the next larger key is.
 */
export function lowerNeighbours(node: Tensor<{ readonly rank: number }>): WasmKernel[] {
  const [x] = node.inputs, width = x.shape.at(-1)!, rows = sizeOf(x.shape) / width;
  const { rank } = node.attributes;
  return [{
    label: "quantile",
    key: `quantile ${width} ${rank}`,
    pointers: [pointTo(x), pointAt(node)],
    tasks: rows,
    scratch: HISTOGRAM,
    build(f, row, [from, to], counts) {
      const begin = f.integer(add(from, mul(row, 4 * width)));
      const first = f.integer(0), before = f.integer(rank), count = f.local("i32");
      const at = f.local("i32");
      for (const shift of [24, 16, 8, 0]) {
        const mask = shift === 24 ? 0 : -1 << (shift + 8);
        f.set(at, counts);
        f.loop(at, add(counts, HISTOGRAM), 4, () => f.storeInteger(at, 0, 0));
        eachKey(f, begin, 4 * width, (key) => {
          f.if(i32.eqz(i32.and(i32.xor(key, first), mask)), () => {
            f.set(at, add(counts, mul(i32.and(i32.shr(key, shift), 255), 4)));
            f.storeInteger(at, 0, add(i32.load(at), 1));
          });
        });
        f.set(at, sub(counts, 4));
        f.set(count, 0);
        f.doWhile(() => {
          f.set(before, sub(before, count));
          f.increase(at, 4);
          f.set(count, i32.load(at));
        }, () => i32.ge(before, count));
        f.set(first, i32.or(first, i32.shl(i32.shr(sub(at, counts), 2), shift)));
      }
      const next = f.integer(LARGEST), hasNan = f.integer(0);
      eachKey(f, begin, 4 * width, (key) => {
        f.if(i32.gt(key, first), () => f.if(i32.lt(key, next), () => f.set(next, key)));
        f.if(i32.eq(key, LARGEST), () => f.set(hasNan, 1));
      });
      // The next value is the same one if there are more of it, or none that is larger.
      f.if(i32.lt(add(before, 1), count), () => f.set(next, first));
      f.if(i32.eq(next, LARGEST), () => f.set(next, first));
      f.set(at, add(to, mul(row, 8)));
      [first, next].forEach((key, i) =>
        f.storeInteger(at, 4 * i, i32.select(NAN, bitsOf(key), hasNan))
      );
    },
  }];
}
