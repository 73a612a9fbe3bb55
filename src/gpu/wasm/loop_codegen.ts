/**
 * What maps and sums over loop nests have in common: addresses, loads and stores, walks.
 *
 * @module
 */

import type { Access, Axis, Loop } from "../compile/loop.ts";
import type { Storage } from "../storage.ts";
import {
  type Body,
  div,
  f32,
  f32x4,
  i32,
  i32x4,
  load,
  loadSplat,
  type Local,
  mul,
  type Operand,
  rem,
} from "./assembler.ts";
import type { Pointer } from "./kernel.ts";

/** Elements that make a task worth while: some 10 µs of work. */
export const TASK_ELEMENTS = 8192;

/** An access of a nest, with strides in bytes along its axes. */
export interface Port {
  readonly isInteger: boolean;
  readonly strides: readonly number[];
}

export const makePorts = (loop: Loop<Storage>, axes: readonly Axis[]): Port[] =>
  [...loop.operands, ...loop.results].map(({ storage }, k) => ({
    isInteger: storage.dtype === "i32",
    strides: axes.map((a) => 4 * a.strides[k]),
  }));

/** The pointers of a nest, in the order of its accesses. */
export const pointers = (loop: Loop<Storage>): Pointer[] =>
  [...loop.operands, ...loop.results].map(({ storage, offset }: Access<Storage>, k) => ({
    storage,
    offset: 4 * offset,
    write: k >= loop.operands.length,
  }));

/** The pointers of a nest without sums, which reads all of an element before it writes it. */
export const pointersInStep = (loop: Loop<Storage>): Pointer[] =>
  pointers(loop).map((pointer, k) => {
    const access = loop.operands[k];
    const isInStep = access &&
      loop.results.every(({ strides, offset }) =>
        offset === access.offset &&
        strides.every((s, i) => s === access.strides[i] || loop.domain[i] === 1)
      );
    return isInStep ? { ...pointer, isInStep } : pointer;
  });

/** What tells the code of a nest from that of others. */
export const keyOf = (
  loop: Loop<Storage>,
  ports: readonly Port[],
  axes: readonly Axis[],
  ...more: number[]
) =>
  JSON.stringify([
    loop.results.map((r) => r.expression.id),
    ports.map((p) => [p.isInteger, p.strides]),
    axes.map((a) => [a.size, a.summed]),
    more,
  ]);

/** Whether an axis can be walked by vectors: every access moves by one element or not at all. */
export const isUnit = (loop: Loop<Storage>, axis: Axis) =>
  axis.strides.every((s, k) => s === 1 || (s === 0 && (k < loop.operands.length || axis.summed)));

/** Strides of an axis of size 1. */
export const ones = (loop: Loop<Storage>) => [...loop.operands, ...loop.results].map(() => 1);

/** A vector of an operand: four elements, or one in all lanes; integers as floats, unless as words. */
export function read(
  { isInteger }: Port,
  isVector: boolean,
  address: Operand,
  offset: number,
  isWord: boolean,
): Operand {
  if (!isInteger || isWord) return isVector ? load(address, offset) : loadSplat(address, offset);
  return isVector
    ? f32x4.fromI32(load(address, offset))
    : f32x4.splat(f32.fromI32(i32.load(address, offset)));
}

/** Loads each operand of an expression at its first use. */
export function loadOnce(
  f: Body,
  load: (k: number, isWord: boolean) => Operand,
): (k: number, isWord: boolean) => Operand {
  const loaded = new Map<string, Operand>();
  return (k, isWord) => {
    const key = `${k} ${isWord}`, value = loaded.get(key) ?? f.vector(load(k, isWord));
    loaded.set(key, value);
    return value;
  };
}

/** Stores four elements, or the first of them. */
export function write(
  f: Body,
  { isInteger }: Port,
  isVector: boolean,
  address: Operand,
  offset: number,
  value: Operand,
): void {
  const stored = isInteger ? i32x4.truncate(value) : value;
  if (isVector) f.store(address, offset, stored);
  else f.storeLane(address, offset, stored, 0);
}

/** Walks an axis of `size` elements: `step` at a time while they last, then one at a time. */
export function walk(
  f: Body,
  size: number,
  vectors: number,
  body: (bytes: Local, vectors: number, isVector: boolean) => void,
): void {
  const bytes = f.integer(0), step = 16 * vectors;
  const pairs = Math.floor(4 * size / step) * step, whole = Math.floor(size / 4) * 16;
  f.set(bytes, 0);
  if (pairs) f.loop(bytes, pairs, step, () => body(bytes, vectors, true));
  if (whole > pairs) f.loop(bytes, whole, 16, () => body(bytes, 1, true));
  if (4 * size > whole) f.loop(bytes, 4 * size, 4, () => body(bytes, 1, false));
}

/** Splits a flat index over axes, and moves addresses accordingly. */
export function moveTo(
  f: Body,
  flat: Operand,
  axes: readonly (Axis & { index: number })[],
  ports: readonly Port[],
  bases: readonly Local[],
  addresses: readonly Local[],
): void {
  addresses.forEach((address, k) => f.set(address, bases[k]));
  const rest = f.integer(flat);
  axes.toReversed().forEach((axis, i) => {
    const isFirst = i === axes.length - 1;
    const at = f.integer(isFirst ? rest : rem(rest, axis.size));
    if (!isFirst) f.set(rest, div(rest, axis.size));
    addresses.forEach((address, k) => {
      const stride = ports[k].strides[axis.index];
      if (stride) f.increase(address, mul(at, stride));
    });
  });
}
