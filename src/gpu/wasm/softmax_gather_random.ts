/**
 * Kernels that take little time on the CPU: softmax, gathering, random numbers.
 *
 * @module
 */

import type { RandomAttributes } from "../philox.ts";
import { PHILOX } from "../philox.ts";
import { sizeOf } from "../../shape.ts";
import type { Tensor } from "../tensor.ts";
import {
  add,
  type Body,
  div,
  f32,
  f32x4,
  i32,
  i64,
  load,
  loadSplat,
  type Local,
  mul,
  type Operand,
  rem,
  v128,
} from "./assembler.ts";
import { eachUnit, pointAt, pointTo, type WasmKernel } from "./kernel.ts";
import { vectorFunctions } from "./vector.ts";

/** A row at a time: maximum, exponentials and their sum, quotient. */
export function lowerSoftmax(node: Tensor<{ readonly scale: number }>): WasmKernel[] {
  const { scale } = node.attributes;
  const width = node.shape.at(-1)!, rows = sizeOf(node.shape) / width;
  const each = Math.max(1, Math.floor(4096 / width)),
    whole = Math.floor(width / 4),
    rest = width % 4;
  return [{
    label: "softmax",
    key: `softmax ${width} ${rows} ${scale}`,
    pointers: [pointTo(node.inputs[0]), pointAt(node)],
    tasks: Math.ceil(rows / each),
    scratch: 0,
    build(f, task, [x, y]) {
      const from = f.local("i32"), to = f.local("i32"), i = f.local("i32");
      const most = f.local("v128"), total = f.local("v128"), e = f.local("v128");
      const walk = (vector: () => void, single: () => void) => {
        f.set(i, 0);
        if (whole) f.loop(i, 16 * whole, 16, vector);
        if (rest) f.loop(i, 4 * width, 4, single);
      };
      const lanes = (v: Local, combine: (a: Operand, b: Operand) => Operand) =>
        [1, 2, 3].reduce<Operand>((s, lane) => combine(s, f32x4.lane(v, lane)), f32x4.lane(v, 0));
      eachUnit(f, task, rows, each, (row) => {
        f.set(from, add(x, mul(row, 4 * width)));
        f.set(to, add(y, mul(row, 4 * width)));
        f.set(most, loadSplat(from));
        walk(
          () => f.set(most, f32x4.max(most, load(add(from, i)))),
          () => f.set(most, f32x4.max(most, loadSplat(add(from, i)))),
        );
        f.set(most, f32x4.splat(lanes(most, f32.max)));
        f.set(total, f.constant(0));
        const first = f.constant(0);
        const power = (x: Operand) =>
          vectorFunctions.exp(f, f32x4.mul(f32x4.sub(x, most), f.constant(scale)));
        walk(
          () => {
            f.set(e, power(load(add(from, i))));
            f.set(total, f32x4.add(total, e));
            f.store(add(to, i), 0, e);
          },
          () => {
            f.set(e, power(loadSplat(add(from, i))));
            f.set(total, f32x4.add(total, f32x4.replaceLane(first, 0, f32x4.lane(e, 0))));
            f.storeLane(add(to, i), 0, e, 0);
          },
        );
        f.set(total, f32x4.div(f.constant(1), f32x4.splat(lanes(total, f32.add))));
        walk(
          () => f.store(add(to, i), 0, f32x4.mul(load(add(to, i)), total)),
          () => f.storeLane(add(to, i), 0, f32x4.mul(loadSplat(add(to, i)), total), 0),
        );
      });
    },
  }];
}

/** An index, limited to what there is. */
function limited(f: Body, index: Operand, count: number): Local {
  const row = f.integer(index);
  // As an unsigned number, a negative one is large.
  f.if(i32.gt(row, 0x7fffffff), () => f.set(row, 0));
  f.if(i32.ge(row, count), () => f.set(row, count - 1));
  return row;
}

/** Copies rows. */
export function lowerGather(node: Tensor): WasmKernel[] {
  const [table, index] = node.inputs, [rows] = table.shape, [count, width] = node.shape;
  return [{
    label: "gather",
    key: `gather ${rows} ${count} ${width}`,
    pointers: [pointTo(table), pointTo(index), pointAt(node)],
    tasks: 1,
    scratch: 0,
    build(f, _, [from, at, to]) {
      f.repeat(count, (n) => {
        const row = limited(f, i32.load(add(at, mul(n, 4))), rows);
        const source = f.integer(add(from, mul(row, 4 * width)));
        const target = f.integer(add(to, mul(n, 4 * width)));
        f.repeat(width, () => {
          f.storeInteger(target, 0, i32.load(source));
          f.increase(source, 4);
          f.increase(target, 4);
        });
      });
    },
  }];
}

/** Adds rows up, in the order of the indices. */
export function lowerScatter(node: Tensor): WasmKernel[] {
  const [g, index] = node.inputs, [rows, width] = node.shape, [count] = index.shape;
  return [{
    label: "scatter_sum",
    key: `scatter ${rows} ${count} ${width}`,
    pointers: [pointTo(g), pointTo(index), pointAt(node)],
    tasks: 1,
    scratch: 0,
    build(f, _, [from, at, to]) {
      const target = f.local("i32"), source = f.local("i32");
      f.set(target, to);
      f.repeat(rows * width, () => {
        f.storeInteger(target, 0, 0);
        f.increase(target, 4);
      });
      f.set(source, from);
      f.repeat(count, (n) => {
        const row = limited(f, i32.load(add(at, mul(n, 4))), rows);
        f.set(target, add(to, mul(row, 4 * width)));
        f.repeat(width, () => {
          f.storeFloat(target, 0, f32.add(f32.load(target), f32.load(source)));
          f.increase(source, 4);
          f.increase(target, 4);
        });
      });
    },
  }];
}

/** High half of a product of 32-bit integers. */
const mulHigh = (a: Operand, b: number): Operand =>
  i32.wrap(i64.shr(i64.mul(i64.extend(a), i64.extend(b)), i64.const(32)));

/** Philox4x32-10; see `../philox.ts`. */
function emitPhilox(f: Body, counter: readonly Operand[], key: readonly Operand[]): Local[] {
  let c = counter.map((word) => f.integer(word));
  const k = key.map((word) => f.integer(word));
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(c[0], PHILOX.m0 | 0), high1 = mulHigh(c[2], PHILOX.m1 | 0);
    c = [
      f.integer(i32.xor(i32.xor(high1, c[1]), k[0])),
      f.integer(mul(c[2], PHILOX.m1 | 0)),
      f.integer(i32.xor(i32.xor(high0, c[3]), k[1])),
      f.integer(mul(c[0], PHILOX.m0 | 0)),
    ];
    f.increase(k[0], PHILOX.w0 | 0);
    f.increase(k[1], PHILOX.w1 | 0);
  }
  return c;
}

/** Random tensors, a block of four at a time. */
export function lowerRandom(node: Tensor<RandomAttributes>): WasmKernel[] {
  const { distribution, stream, below } = node.attributes, [seed, first, step] = node.inputs;
  const elements = sizeOf(node.shape.slice(1)), blocks = Math.ceil(elements / 4);
  const count = blocks * node.shape[0], each = 256, rest = elements % 4;
  const scale = 2 ** -32, isNumbered = sizeOf(first.shape) > 1;
  return [{
    label: `random ${distribution}`,
    key: `random ${JSON.stringify(node.attributes)} ${isNumbered}`,
    pointers: [pointTo(seed), pointTo(first), pointTo(step), pointAt(node)],
    tasks: Math.ceil(count / each),
    scratch: 64,
    build(f, task, [seed, first, step, to], scratch) {
      const target = f.local("i32");
      eachUnit(f, task, count, each, (unit) => {
        const image = f.integer(div(unit, blocks)), block = f.integer(rem(unit, blocks));
        const number = isNumbered
          ? i32.load(add(first, mul(image, 4)))
          : add(i32.load(first), image);
        const counter = [block, number, i32.load(step), stream | 0];
        const words = emitPhilox(f, counter, [i32.load(seed), i32.load(seed, 4)]);
        f.set(target, add(to, mul(add(mul(image, elements), mul(block, 4)), 4)));
        let value: Local;
        if (distribution === "integer") {
          words.forEach((word, i) => f.storeInteger(scratch, 4 * i, mulHigh(word, below)));
          value = f.vector(load(scratch));
        } else if (distribution === "uniform") {
          words.forEach((word, i) => f.storeInteger(scratch, 4 * i, word));
          value = f.vector(toUnit(f, load(scratch), scale));
        } else value = normals(f, words, scratch, scale);
        const store = (lanes: number) => {
          if (lanes === 4) f.store(target, 0, value);
          else for (let i = 0; i < lanes; i++) f.storeLane(target, 4 * i, value, i);
        };
        if (!rest) store(4);
        else if (blocks === 1) store(rest);
        else f.if(i32.lt(block, blocks - 1), () => store(4), () => store(rest));
      });
    },
  }];
}

/** (word + ½) · scale. */
const toUnit = (f: Body, words: Operand, scale: number): Operand =>
  f32x4.mul(f32x4.add(f32x4.fromU32(words), f.constant(0.5)), f.constant(scale));

/** Two pairs of words as four normals: √(-2 ln u) times cosine and sine of a turn. */
function normals(f: Body, words: readonly Local[], scratch: Local, scale: number): Local {
  [words[0], words[0], words[2], words[2]].forEach((w, i) => f.storeInteger(scratch, 4 * i, w));
  // The signed rest of the nearest quarter turn is exact; the quarter is added as a whole.
  [words[1], words[1], words[3], words[3]].forEach((w, i) => {
    const quarter = i32.shr(add(w, 0x20000000), 30);
    f.storeInteger(scratch, 16 + 4 * i, add(w, mul(quarter, -(1 << 30))));
    // Of each pair, the first is a cosine: a sine a quarter later.
    f.storeInteger(scratch, 32 + 4 * i, i % 2 ? quarter : add(quarter, 1));
  });
  const u = toUnit(f, load(scratch), scale);
  const logarithm = f32x4.mul(vectorFunctions.log(f, u), f.constant(-2));
  const radius = f.vector(f32x4.sqrt(logarithm));
  const half = f.constant(0.5), turn = f.constant(2 * Math.PI * 2 ** -32);
  const angle = f.vector(f32x4.mul(f32x4.add(f32x4.fromI32(load(scratch, 16)), half), turn));
  const quarter = f.vector(f32x4.fromI32(load(scratch, 32)));
  const [s, c] = ([0, 1] as const).map((q) => f.vector(vectorFunctions.sin(f, angle, q)));
  // quarter mod 4 chooses sin, cos, -sin, -cos.
  const floorHalf = f.vector(f32x4.floor(f32x4.mul(quarter, half)));
  const isOdd = f32x4.gt(f32x4.nmadd(floorHalf, f.constant(2), quarter), half);
  const value = f.vector(v128.select(c, s, isOdd));
  const again = f32x4.floor(f32x4.mul(floorHalf, half));
  const isNegative = f32x4.gt(f32x4.nmadd(again, f.constant(2), floorHalf), half);
  const signed = v128.xor(value, v128.and(isNegative, f.constant(-0)));
  return f.vector(f32x4.mul(radius, signed));
}
