/**
 * Where the operands and results of loop nests are: what they are bound to, and WGSL of addresses.
 *
 * @module
 */

import { type Access, type Axis, collapse, type Loop } from "../compile/loop.ts";
import { Scratch, type Storage, storageSize } from "../storage.ts";
import {
  alignmentOf,
  type Binding,
  BINDING_ALIGNMENT,
  load as loadElement,
  store,
  type WgslTarget,
} from "./kernel.ts";

/** How a kernel addresses one operand or result. */
export interface Port {
  /** Its binding, which others may share. */
  readonly binding: Binding;
  /** Strides along the axes and first element, in vectors where the binding's are. */
  readonly strides: readonly number[];
  readonly start: number;
}

/** Where the binding of an access starts. */
const bindingStart = ({ storage, offset }: Access<Storage>) =>
  offset - offset % alignmentOf(storage);

/** Whether a vectorised nest would bind nothing both as vectors and as elements. */
export function isBoundOneWay(loop: Loop<Storage>, axes: readonly Axis[]): boolean {
  const { strides } = axes.at(-1)!, ways = new Map<Storage, Map<number, number>>();
  return [...loop.operands, ...loop.results].every((access, k) => {
    const start = bindingStart(access), ofStorage = ways.get(access.storage) ?? new Map();
    ways.set(access.storage, ofStorage);
    if (!ofStorage.has(start)) ofStorage.set(start, strides[k]);
    return ofStorage.get(start) === strides[k];
  });
}

/** Bindings and addresses of all accesses; those of one storage share a binding where that is possible. */
export function makePorts(
  loop: Loop<Storage>,
  axes: readonly Axis[],
  vectorized: boolean,
  { maxBindingElements }: WgslTarget,
): { ports: Port[]; bindings: Binding[] } {
  const bindings: Binding[] = [];
  const accesses = [...loop.operands, ...loop.results];
  const bound = accesses.map((access, k) => {
    const { storage } = access, vector = vectorized && axes.at(-1)!.strides[k] === 1;
    const offset = bindingStart(access);
    const last = axes.reduce((n, a) => n + (a.size - 1) * a.strides[k], access.offset);
    const size = storageSize(storage);
    // Parts of sums lie behind one another, where the axes do not reach.
    const reach = storage instanceof Scratch ? size : Math.ceil((last + 1) / 4) * 4;
    const end = Math.min(size, reach), write = k >= loop.operands.length;
    const others = bindings.map((b) => {
      const from = Math.min(offset, b.offset), to = Math.max(end, b.offset + b.length);
      return { from, length: to - from };
    });
    const i = bindings.findIndex((b, i) =>
      b.storage === storage &&
      (b.offset === offset || (b.vector === vector && others[i].length <= maxBindingElements))
    );
    if (i < 0) {
      const name = `b${bindings.length}`;
      return bindings.push({ name, storage, offset, length: end - offset, vector, write }) - 1;
    }
    const found = bindings[i], { from, length } = others[i];
    if (found.vector !== vector) {
      throw new TypeError(`Cannot read ${loop.label} both by vectors and by elements`);
    }
    bindings[i] = { ...found, offset: from, length, write: write || found.write };
    return i;
  });
  const ports = accesses.map((access, k): Port => {
    const binding = bindings[bound[k]], unit = binding.vector ? 4 : 1;
    return {
      binding,
      strides: axes.map((a) => a.strides[k] / unit),
      start: (access.offset - binding.offset) / unit,
    };
  });
  return { ports, bindings };
}

/** Uniforms that name every port's start and its strides along some axes. */
export function addressUniforms(ports: readonly Port[], axes: readonly Axis[], count: number) {
  const uniforms: Record<string, number> = {};
  ports.forEach((port, k) => {
    uniforms[`start${k}`] = port.start;
    axes.forEach((_, a) => {
      if (axes[a].strides.some((s) => s)) uniforms[`s${k}_${a}`] = port.strides[a];
    });
  });
  axes.slice(0, count).forEach((axis, a) => uniforms[`n${a}`] = axis.size);
  return uniforms;
}

/** Whether a port holds integers. */
export const isInteger = ({ binding }: Port): boolean => binding.storage.dtype === "i32";

/** WGSL that reads a port at an index, as `T`, or `I` for integers. */
export function read(port: Port, index: string): string {
  const value = loadElement(port.binding, index);
  return port.binding.vector ? value : `${isInteger(port) ? "I" : "T"}(${value})`;
}

/** WGSL that stores a value of type `T`. */
export function write({ binding }: Port, index: string, value: string): string {
  const integer = binding.vector ? "vec4i" : "i32";
  const isFloat = binding.storage.dtype === "f32";
  return store(binding, index, isFloat ? value : `${integer}(${value})`);
}

/** WGSL that decodes a flat index over `axes` into `i0`, `i1`, … */
export function decode(axes: readonly { size: number; index: number }[], flat: string): string {
  const lines = [`var rest = ${flat};`];
  axes.toReversed().forEach(({ index }, k) => {
    const isLast = k === axes.length - 1;
    lines.push(`let i${index} = ${isLast ? "rest" : `rest % u.n${index}`};`);
    if (!isLast) lines.push(`rest = rest / u.n${index};`);
  });
  return axes.length ? lines.join("\n") : "";
}

/** WGSL of the first element of a port, given an index along each of some axes. */
export const at = (k: number, axes: readonly { index: number }[]): string =>
  [`u.start${k}`, ...axes.map(({ index }) => `i${index} * u.s${k}_${index}`)].join(" + ");

/** Strides of an axis that is none. */
export const loopOnes = (loop: Loop<Storage>): number[] =>
  [...loop.operands, ...loop.results].map(() => 1);

/** A flat nest over more elements than a binding may span, in parts. */
export function splitLarge(loop: Loop<Storage>, target: WgslTarget): Loop<Storage>[] | undefined {
  const axes = collapse(loop);
  const size = target.maxBindingElements - target.maxBindingElements % BINDING_ALIGNMENT;
  if (axes.length !== 1 || axes[0].size <= size) return undefined;
  const parts: Loop<Storage>[] = [];
  for (let start = 0; start < axes[0].size; start += size) {
    const part = <A extends Access<Storage>>(access: A, k: number): A => ({
      ...access,
      strides: [axes[0].strides[k]],
      offset: access.offset + start * axes[0].strides[k],
    });
    parts.push({
      ...loop,
      domain: [Math.min(size, axes[0].size - start)],
      summed: [axes[0].summed],
      operands: loop.operands.map(part),
      results: loop.results.map((r, i) => part(r, loop.operands.length + i)),
    });
  }
  return parts;
}
