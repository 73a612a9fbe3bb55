/**
 * What runs programs: a {@linkcode Device}, the {@linkcode Program}s compiled for it, and the
 * {@linkcode TensorBuffer}s they read and write. Programs and buffers are all that owns memory.
 *
 * @module
 */

import type { Graph } from "./graph.ts";
import type { DType } from "./tensor.ts";

/**
 * A device failed: out of memory, lost, or told to do what it cannot. The message says what was
 * being done, and on which device.
 *
 * @example
 * ```ts
 * import { DeviceError, openDevice } from "@x/ddpm";
 *
 * try {
 *   using device = await openDevice("gpu");
 *   console.log(device.name);
 * } catch (error) {
 *   if (error instanceof DeviceError) console.log(error.message);
 * }
 * ```
 */
export class DeviceError extends Error {
  /** `DeviceError`. */
  override readonly name = "DeviceError";
}

/** Memory of a device that outlives a run: parameters, images, counters. */
export interface TensorBuffer extends Disposable {
  /** Type of its elements. */
  readonly dtype: DType;
  /** Number of elements. */
  readonly length: number;
  /**
   * Overwrites elements from `offset` on, in order with programs that run before and after.
   *
   * @throws {RangeError} If they do not fit.
   */
  write(values: ArrayLike<number>, offset?: number): void;
  /**
   * Waits for what was started before, and reads elements. On a GPU under Deno a wait takes at
   * least 11 ms, so this is nothing to do at every step.
   *
   * @throws {DeviceError} If something failed since the last wait.
   */
  read(
    offset?: number,
    length?: number,
  ): Promise<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>>;
}

/** A compiled graph with its memory. */
export interface Program extends Disposable {
  /** What it is for, in messages. */
  readonly label: string;
  /** Inputs and outputs by name. */
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  /** Bytes that it took for itself, without buffers that it was given. */
  readonly memory: number;
  /** Kernels of a run. */
  readonly dispatches: number;
  /** Floating point operations of a run, convolutions and matrix products only. */
  readonly flops: number;
  /**
   * Starts it, `times` times over. Returns before it is done; reads and later runs wait.
   *
   * @throws {DeviceError} If something failed since the last wait.
   */
  run(times?: number): void;
}

/** Settings of a compilation. */
export interface CompileOptions {
  /** What the program is for, in messages. */
  readonly label?: string;
  /** Buffers for inputs, by name, that somebody else owns; the program makes the others. */
  readonly buffers?: Readonly<Record<string, TensorBuffer>>;
  /**
   * Inputs that seldom change. A device may keep how it prepares them for its kernels, at the price
   * of memory; it notices when they are written.
   */
  readonly constant?: readonly string[];
}

/** What runs programs; {@linkcode openDevice} makes one. Dispose of it to free its memory. */
export interface Device extends Disposable {
  /** `gpu` for WebGPU, be it in software; `cpu` for WebAssembly or the interpreter. */
  readonly kind: "gpu" | "cpu";
  /** The adapter's own description. */
  readonly name: string;
  /**
   * Memory for `length` elements, zeros at first.
   *
   * @param dtype @default {"f32"}
   * @throws {DeviceError} If it is more than the device allows.
   */
  buffer(length: number, dtype?: DType): TensorBuffer;
  /**
   * Makes a program of a graph.
   *
   * @internal
   * @throws {DeviceError} If it does not fit into the device's memory or limits.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  /**
   * Waits until everything started so far is done.
   *
   * @throws {DeviceError} If something failed since the last wait.
   */
  idle(): Promise<void>;
}
