/**
 * A {@linkcode WasmKernel} is one entry of a tape: a function, what it is called with, and into how
 * many independent tasks its work falls. Threads take tasks until none are left.
 *
 * @module
 */

import type { Elementwise } from "../compile/loop.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import type { Scratch, Storage } from "../storage.ts";
import { add, type Body, i32, type Local, mul, type ValueType } from "./assembler.ts";

/** A pointer that a kernel is called with. */
export interface Pointer {
  readonly storage: Storage;
  /** Bytes from its start. */
  readonly offset: number;
  readonly write: boolean;
  /**
   * Whether each number is read only by who writes the one at the same place, and before that: then
   * both may be in the same memory.
   */
  readonly isInStep?: boolean;
}

/** One entry of a tape. */
export interface WasmKernel {
  /** What it computes, for messages and profiles. */
  readonly label: string;
  /** Kernels with equal keys have equal functions. */
  readonly key: string;
  /** Writes the function: its parameters are the task, the pointers, and the thread's scratch. */
  readonly build: (f: Body, task: Local, pointers: readonly Local[], scratch: Local) => void;
  readonly pointers: readonly Pointer[];
  /** Tasks, which may run in any order and at the same time. */
  readonly tasks: number;
  /** The number of the first one. @default {0} */
  readonly first?: number;
  /** Bytes of scratch that a thread needs. */
  readonly scratch: number;
  /** How its tasks go through an input, if each needs only what is beside its part of the result. */
  readonly walk?: Walk;
}

/** How a kernel goes from the start of an input and of its result to their ends. */
export interface Walk {
  readonly input: Storage;
  readonly result: Storage;
  /** Tasks that make up a step, which come one after the other, and how many steps there are. */
  readonly tasks: number;
  readonly steps: number;
  /** Bytes of the input and of the result before a step. */
  readonly before: (step: number) => readonly [input: number, result: number];
}

/** What kernels are generated for. */
export interface WasmTarget {
  /** Vectors that are emitted side by side: 2 lets V8 fuse pairs into 256-bit instructions. */
  readonly pair: 1 | 2;
}

/** Types of the parameters of a kernel's function. */
export const parameterTypes = (kernel: WasmKernel): ValueType[] =>
  new Array(kernel.pointers.length + 2).fill("i32");

/** A pointer to the first element of an input, as it lies in memory. */
export function pointTo(tensor: Tensor): Pointer {
  const { source, offset } = resolve(tensor);
  return { storage: source, offset: 4 * offset, write: false };
}

/** Pointers to what an input is read or computed from. */
export function pointToInput(tensor: Tensor, fused: Elementwise | undefined): Pointer[] {
  if (!fused) return [pointTo(tensor)];
  return fused.operands.map(({ storage, offset }) => ({
    storage,
    offset: 4 * offset,
    write: false,
  }));
}

/** A pointer to write to. */
export const pointAt = (storage: Storage): Pointer => ({ storage, offset: 0, write: true });

/** A pointer to scratch memory between kernels, to read. */
export const pointFrom = (storage: Scratch): Pointer => ({ storage, offset: 0, write: false });

/** Runs `body` for a task's part of `count` units. */
export function eachUnit(
  f: Body,
  task: Local,
  count: number,
  each: number,
  body: (unit: Local) => void,
): void {
  const unit = f.integer(mul(task, each)), end = f.integer(add(unit, each));
  if (count % each) f.if(i32.gt(end, count), () => f.set(end, count));
  f.loop(unit, end, 1, () => body(unit));
}
