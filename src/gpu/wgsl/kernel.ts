/**
 * A {@linkcode Kernel} is one dispatch: a WGSL text, what it is bound to, and how many workgroups
 * run it. Texts name no shapes; sizes and strides come through uniforms, so that a network with
 * twenty shapes of convolution compiles one pipeline for them. (On lavapipe a kernel costs 0.1 to
 * 0.6 s of LLVM, and uniform sizes cost the convolution 4 % of its speed.)
 *
 * @module
 */

import type { Fusing } from "../compile/fusion_rules.ts";
import type { Fused } from "../compile/loop.ts";
import { isDense, sizeOf } from "../../shape.ts";
import { elementBytes, elementOf, type Storage, storageSize } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import type { TileName } from "./gemm.ts";

/** What kernels are generated for. */
export interface WgslTarget {
  /** Invocations of a workgroup of a streaming kernel. */
  readonly lanes: number;
  /** Iterations that make starting an invocation of a streaming kernel worth while. */
  readonly steps: number;
  /** Workgroups that occupy the device; work is split further as long as there are fewer. */
  readonly workgroups: number;
  /** The size of a subgroup, where it is fixed and kernels may use subgroup operations; else 0. */
  readonly subgroup: number;
  /** The tile that products are computed by, if it is not to be chosen. */
  readonly tile?: TileName;
  /** Storage buffers a kernel may use. */
  readonly maxStorageBuffers: number;
  /** Elements a binding may span. */
  readonly maxBindingElements: number;
  /** Whether kernels of products do elementwise work on the way where they can. */
  readonly fusesOperations: boolean;
  /** The way to take products wherever there is a choice that has it, by its name among candidates. */
  readonly preferred?: string;
}

/** One way to compute an operation. */
export interface Variant<A = unknown> {
  readonly name: string;
  /** Whether it can serve this node on this device; always, if missing. */
  when?(node: Tensor<A>, target: WgslTarget): boolean;
  /** Whether it is likely to be faster than the variants after it; yes, if missing. */
  pays?(node: Tensor<A>, target: WgslTarget): boolean;
  /** Elementwise work that its kernels can do on the way; none, if missing. */
  readonly fuses?: Fusing;
  /** The dispatches, in order. */
  lower(node: Tensor<A>, target: WgslTarget, fused: Fused): readonly Kernel[];
}

/** A range of a storage as a kernel sees it. */
export interface Binding {
  readonly name: string;
  readonly storage: Storage;
  /** First element and number of elements. */
  readonly offset: number;
  readonly length: number;
  /** Whether elements are read and written four at a time. */
  readonly vector: boolean;
  readonly write: boolean;
}

/** Bytes of a binding. */
export const bindingBytes = ({ storage, length }: Binding): number =>
  length * elementBytes(storage);

/**
 * The part of a buffer that a binding spans, up to whole vectors.
 *
 * @param start The element of the buffer that its storage starts at.
 */
export function bindBuffer(
  { storage, offset, length }: Binding,
  buffer: GPUBuffer,
  start = 0,
): GPUBufferBinding {
  const bytes = elementBytes(storage);
  return { buffer, offset: (start + offset) * bytes, size: Math.ceil(length / 4) * 4 * bytes };
}

/** One dispatch. */
export interface Kernel {
  /** What it computes, for messages and profiles. */
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly Binding[];
  readonly uniforms: Uint32Array<ArrayBuffer>;
  readonly workgroups: readonly [number, number, number];
}

/** A binding of the whole of a storage, by default as scalars for reading. */
export function bind(
  name: string,
  storage: Storage,
  { vector = false, write = false } = {},
): Binding {
  return { name, storage, offset: 0, length: storageSize(storage), vector, write };
}

/** WGSL of an element of a binding, or four of them: an `f32` or a `vec4f`, or `i32` as it is. */
export function load({ name, storage, vector }: Binding, index: string): string {
  const value = `${name}[${index}]`;
  return elementOf(storage) === "f16" ? `${vector ? "vec4f" : "f32"}(${value})` : value;
}

/** WGSL of four elements, a `vec4f`; the first of them is one of those that a vector starts with. */
export const loadFour = (binding: Binding, at: string): string =>
  binding.vector
    ? load(binding, `(${at}) >> 2u`)
    : `vec4f(${[0, 1, 2, 3].map((i) => load(binding, `${at} + ${i}u`))})`;

/** WGSL that stores what {@linkcode load} reads. */
export function store({ name, storage, vector }: Binding, index: string, value: string): string {
  const isHalf = elementOf(storage) === "f16";
  return `${name}[${index}] = ${isHalf ? `${vector ? "vec4h" : "f16"}(${value})` : value};`;
}

/** Bindings start at multiples of this many bytes, the WebGPU default. */
const ALIGNMENT_BYTES = 256;
/** Bindings of 32-bit elements start at multiples of this many. */
export const BINDING_ALIGNMENT: number = ALIGNMENT_BYTES / 4;

/** Elements of a storage at multiples of which bindings start. */
export const alignmentOf = (storage: Storage): number => ALIGNMENT_BYTES / elementBytes(storage);

/**
 * Whether a tensor's elements can be bound as they lie: dense, and starting where bindings may.
 *
 * @param bytes Of an element.
 */
export function isBindable(tensor: Tensor, bytes: 2 | 4 = 4): boolean {
  const { strides, offset } = resolve(tensor);
  return isDense(tensor.shape, strides) && offset * bytes % ALIGNMENT_BYTES === 0;
}

/** A binding of an operand that the compiler made sure {@linkcode isBindable}. */
export function bindInput(name: string, tensor: Tensor, vector = false): Binding {
  const { source, offset } = resolve(tensor);
  return { name, storage: source, offset, length: sizeOf(tensor.shape), vector, write: false };
}

/**
 * A binding of the part of a storage that a view reaches, and the view's first element in it. The
 * binding may start a little before the view, where bindings may start.
 */
export function bindRange(name: string, tensor: Tensor): { binding: Binding; start: number } {
  const { source, strides, offset } = resolve(tensor);
  const start = offset % alignmentOf(source);
  const last = tensor.shape.reduce((n, size, i) => n + (size - 1) * strides[i], offset);
  const end = Math.min(sizeOf(source.shape), Math.ceil((last + 1) / 4) * 4);
  const length = end - (offset - start);
  return {
    binding: { ...bind(name, source), offset: offset - start, length },
    start,
  };
}

/** Elementary parts of a kernel that {@linkcode makeKernel} puts together. */
export interface KernelParts {
  readonly label: string;
  readonly bindings: readonly Binding[];
  /** Names and values of uniforms; the body reads them as `u.name`. */
  readonly uniforms: Readonly<Record<string, number>>;
  /** WGSL at module scope. */
  readonly functions?: string;
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** WGSL of `main`; sees `group` (vec3u, the workgroup) and `lane` (u32). */
  readonly body: string;
  readonly workgroups: readonly [number, number, number];
}

const MAX_GROUPS = 65535;

/** Assembles a kernel. */
export function makeKernel(parts: KernelParts): Kernel {
  const { label, bindings, uniforms, lanes, workgroups } = parts;
  const names = Object.keys(uniforms);
  const code = [
    ...(bindings.some(({ storage }) => elementOf(storage) === "f16") ? ["enable f16;"] : []),
    ...bindings.map((b, i) => {
      const scalar = elementOf(b.storage), element = b.vector ? `vec4<${scalar}>` : scalar;
      const access = b.write ? "read_write" : "read";
      return `@group(0) @binding(${i}) var<storage, ${access}> ${b.name}: array<${element}>;`;
    }),
    ...(names.length
      ? [
        `struct Uniforms { ${names.map((n) => `${n}: u32`).join(", ")} }`,
        `@group(0) @binding(${bindings.length}) var<uniform> u: Uniforms;`,
      ]
      : []),
    ...(parts.functions ? [parts.functions] : []),
    `@compute @workgroup_size(${lanes})`,
    "fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {",
    parts.body,
    "}",
  ].join("\n");
  return {
    label,
    code,
    bindings,
    workgroups,
    uniforms: new Uint32Array(names.map((n) => uniforms[n])),
  };
}

/** Workgroups along y of a grid that is folded, and its flat index, which is also that of one that is not. */
const FOLD = 32768;
export const FOLDED = `(group.y + group.z * ${FOLD}u)`;

/** A one-dimensional grid of `n` workgroups folded into two dimensions, and its flat index. */
export function foldGrid(n: number): { grid: [number, number]; index: string } {
  if (n <= MAX_GROUPS) return { grid: [n, 1], index: "group.y" };
  return { grid: [FOLD, Math.ceil(n / FOLD)], index: FOLDED };
}
