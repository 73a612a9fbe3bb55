/**
 * What runs programs: a {@linkcode Device}, the {@linkcode Program}s compiled for it, and the
 * {@linkcode TensorBuffer}s they read and write. Programs and buffers are all that owns memory.
 *
 * @module
 */

import { describeExcess, type MemoryPlan, type ProgramDescription } from "./describe.ts";
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

/**
 * Something does not fit into a device's memory, or exceeds another of its limits. Nothing was
 * allocated for it.
 */
export class LimitError extends DeviceError {
  /** How much is wanted, bytes mostly; the message tells what of. */
  readonly wanted: number;
  /** How much there can be. */
  readonly limit: number;
  /** The most images at a time that would fit, if it is about those; 0 if not even one does. */
  readonly largestBatch: number | undefined;

  /** @internal */
  constructor(message: string, wanted: number, limit: number, largestBatch?: number) {
    super(message);
    this.wanted = wanted;
    this.limit = limit;
    this.largestBatch = largestBatch;
  }
}

/** The error of a plan that cannot be had, if it cannot. */
export function limitError(
  { excess }: MemoryPlan,
  label: string,
  device: string,
): LimitError | undefined {
  if (!excess) return undefined;
  const { wanted, limit } = excess;
  return new LimitError(
    `Cannot compile ${label}: ${describeExcess(excess, device)}`,
    ...[wanted, limit] as const,
  );
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
   * Where elements lie, for whoever overwrites them at once, if that is in memory of this thread. It
   * is valid until the device takes more memory, and counts as a write.
   *
   * @throws {RangeError} If there are none there.
   */
  place?(offset: number, length: number): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
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
  /** What it consists of. */
  describe(): ProgramDescription;
  /**
   * Runs it once, each kernel by itself, and tells how long they took.
   *
   * @returns Milliseconds of each kernel, in the order of {@linkcode Program.describe}; 0 for those
   * that prepare constants.
   * @throws {DeviceError} If something failed since the last wait.
   */
  profile(): Promise<readonly number[]>;
}

/**
 * How tensors lie in memory between kernels: `f16` as 16-bit floats, half the size, where they are
 * activations of a network or gradients of those. What is computed is 32 bits wide in any case, and so
 * are parameters and images.
 */
export type Precision = "f32" | "f16";

/** The error of a device that cannot keep tensors as 16-bit floats. */
export const noHalves = (device: string): DeviceError =>
  new DeviceError(
    `Cannot compute with precision f16 on ${device}: it takes a GPU whose WebGPU adapter has the ` +
      "feature shader-f16; f32 works everywhere",
  );

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
  /** How tensors lie in memory between kernels. @default {"f32"} */
  readonly precision?: Precision;
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
   * @throws {LimitError} If it does not fit into the device's memory or limits.
   * @throws {DeviceError} If the device does not know the precision.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  /**
   * The memory that a program would take. Nothing is allocated.
   */
  plan(graph: Graph, options?: CompileOptions): MemoryPlan;
  /**
   * Waits until everything started so far is done.
   *
   * @throws {DeviceError} If something failed since the last wait.
   */
  idle(): Promise<void>;
}
