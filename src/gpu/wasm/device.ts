/**
 * The CPU as a {@linkcode Device}: WebAssembly on all cores, over one shared memory.
 *
 * @module
 */

import { withResolvers } from "../../ponyfills.ts";
import { f32x4, Module } from "./assembler.ts";
import {
  type CompileOptions,
  type Device,
  DeviceError,
  LimitError,
  type Program,
  type TensorBuffer,
} from "../device.ts";
import type { Graph } from "../graph.ts";
import type { DType, HostArray } from "../tensor.ts";
import type { WasmTarget } from "./kernel.ts";
import { detectPair } from "./simd_width.ts";
import type { MemoryPlan } from "../describe.ts";
import { lowerProgram } from "./lower.ts";
import { compileProgram } from "./program.ts";
import {
  CONTROL_BYTES,
  makePlayer,
  type Player,
  threadProgram,
  type ThreadSetup,
} from "./threads.ts";
import { whyInsecure } from "../secure_context.ts";
import { formatBytes } from "../../units.ts";

const PAGE = 65536;
/** As much as 32-bit addresses reach. */
const MAX_PAGES = 65536;
/** The same in bytes. */
const MAX_BYTES = MAX_PAGES * PAGE;
/** Allocations start at multiples of this: a cache line. */
const ALIGNMENT = 64;

/** The CPU. */
export class WasmDevice implements Device {
  readonly kind = "cpu";
  readonly name: string;
  /** Number of threads, this one included. */
  readonly threads: number;
  /** What kernels are generated for. */
  readonly target: WasmTarget;
  readonly memory: WebAssembly.Memory;
  /** Whether other threads can see the memory. */
  readonly isShared: boolean;
  readonly player: Player;
  readonly #workers: readonly Worker[];
  /** Unused ranges of the memory, in order. */
  #free: { start: number; end: number }[] = [];
  #end: number = Math.ceil(CONTROL_BYTES / ALIGNMENT) * ALIGNMENT;
  readonly #sizes = new Map<number, number>();
  #isClosed = false;

  private constructor(memory: WebAssembly.Memory, workers: readonly Worker[]) {
    this.memory = memory;
    this.isShared = !(memory.buffer instanceof ArrayBuffer);
    this.threads = workers.length + 1;
    this.target = { pair: detectPair() };
    const threads = `${this.threads} ${this.threads === 1 ? "thread" : "threads"}`;
    this.name = `CPU, ${threads} (WebAssembly${this.target.pair === 2 ? ", wide" : ""})`;
    this.player = makePlayer({ memory, threads: this.threads, index: 0 });
    this.#workers = workers;
  }

  /**
   * Opens the device.
   *
   * @param threads How many, by default as many as there are cores.
   * @param onNotice Is told why there is one thread where more were wanted: memory cannot be shared,
   * or a policy forbids workers.
   * @throws {DeviceError} If there is no WebAssembly, or a policy forbids it.
   */
  static async open(
    threads: number = globalThis.navigator?.hardwareConcurrency ?? 1,
    onNotice?: (notice: string) => void,
  ): Promise<WasmDevice> {
    checkWebAssembly();
    const isShared = typeof SharedArrayBuffer !== "undefined",
      wanted = Math.max(1, Math.floor(threads));
    const initial = Math.ceil(CONTROL_BYTES / PAGE);
    const memory = new WebAssembly.Memory({ initial, maximum: MAX_PAGES, shared: isShared });
    const count = isShared ? wanted : 1, url = count > 1 ? urlOfThreads() : "";
    try {
      const started = await Promise.allSettled(
        Array.from({ length: count - 1 }, (_, i) => startWorker(url, memory, count, i + 1)),
      );
      const workers = started.filter((s) => s.status === "fulfilled").map((s) => s.value);
      const failure = started.find((s) => s.status === "rejected");
      if (wanted > 1 && !isShared) onNotice?.(`one thread instead of ${wanted}: ${whyNotShared()}`);
      if (!failure) return new WasmDevice(memory, workers);
      for (const worker of workers) worker.terminate();
      onNotice?.(`one thread instead of ${wanted}: ${(failure.reason as Error).message}`);
      return new WasmDevice(memory, []);
    } finally {
      if (url) URL.revokeObjectURL(url);
    }
  }

  /**
   * Takes memory, filled with zeros.
   *
   * @throws {DeviceError} If there is not as much left as WebAssembly can address.
   */
  allocate(bytes: number, what: string): number {
    this.check();
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const i = this.#free.findIndex(({ start, end }) => end - start >= size);
    let start: number;
    if (i >= 0) {
      start = this.#free[i].start;
      this.#free[i] = { start: start + size, end: this.#free[i].end };
      if (this.#free[i].start === this.#free[i].end) this.#free.splice(i, 1);
      new Uint8Array(this.memory.buffer, start, size).fill(0);
    } else {
      start = this.#end;
      this.#grow(start + size, bytes, what);
      this.#end = start + size;
    }
    this.#sizes.set(start, size);
    return start;
  }

  /** Bytes that can still be taken. */
  get available(): number {
    return this.#free.reduce((sum, { start, end }) => sum + end - start, MAX_BYTES - this.#end);
  }

  #grow(end: number, bytes: number, what: string): void {
    const pages = Math.ceil(end / PAGE) - this.memory.buffer.byteLength / PAGE;
    if (pages <= 0) return;
    try {
      this.memory.grow(pages);
    } catch {
      throw new LimitError(
        `Cannot take ${formatBytes(bytes)} for ${what}: ${formatBytes(this.#end)} are taken, and ` +
          `WebAssembly gives ${formatBytes(MAX_BYTES)} at most`,
        ...[bytes, this.available] as const,
      );
    }
  }

  /** Gives memory back. */
  release(start: number): void {
    const size = this.#sizes.get(start);
    if (size === undefined) return;
    this.#sizes.delete(start);
    this.#free.push({ start, end: start + size });
    this.#free.sort((a, b) => a.start - b.start);
    this.#free = this.#free.reduce<{ start: number; end: number }[]>((merged, range) => {
      const last = merged.at(-1);
      if (last?.end === range.start) last.end = range.end;
      else merged.push({ ...range });
      return merged;
    }, []);
  }

  buffer(length: number, dtype?: DType): WasmBuffer {
    return new WasmBuffer(this, length, dtype);
  }

  compile(graph: Graph, options: CompileOptions = {}): Promise<Program> {
    return Promise.resolve().then(() => compileProgram(this, graph, options));
  }

  plan(graph: Graph, options: CompileOptions = {}): MemoryPlan {
    return lowerProgram(this, graph, options).memory;
  }

  idle(): Promise<void> {
    this.check();
    return Promise.resolve();
  }

  /** Throws if the device was closed. */
  check(): void {
    if (this.#isClosed) throw new DeviceError("The CPU device was closed");
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.player.command("quit", {});
    for (const worker of this.#workers) worker.terminate();
  }
}

/** Why memory cannot be shared between threads. */
const whyNotShared = () =>
  "document" in globalThis || "WorkerGlobalScope" in globalThis
    ? whyInsecure() ??
      "the page is not cross-origin isolated, which takes the headers Cross-Origin-Opener-Policy: " +
        "same-origin and Cross-Origin-Embedder-Policy: require-corp"
    : "there is no SharedArrayBuffer";

/** The least module there is. */
const EMPTY_MODULE = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);

/** Whether there are the relaxed vector instructions that kernels are made of. */
function hasRelaxedSimd(): boolean {
  const module = new Module(), zero = f32x4.const(0);
  module.define("f", [], (f) => f.vector(f32x4.madd(zero, zero, zero)));
  return WebAssembly.validate(module.encode({ maxPages: 1, isShared: false }));
}

/** @throws {DeviceError} If there is no WebAssembly, it lacks instructions, or a policy forbids it. */
function checkWebAssembly(): void {
  try {
    new WebAssembly.Module(EMPTY_MODULE);
  } catch (error) {
    const why = typeof WebAssembly === "undefined"
      ? "there is no WebAssembly"
      : "WebAssembly is forbidden; in a page, its content security policy must allow script-src " +
        "'wasm-unsafe-eval'";
    throw new DeviceError(`Cannot compute on the CPU: ${why}`, { cause: error });
  }
  if (hasRelaxedSimd()) return;
  throw new DeviceError(
    "Cannot compute on the CPU: WebAssembly lacks relaxed SIMD; Node 20 has it with " +
      "--experimental-wasm-relaxed-simd, and Node 22 without",
  );
}

/** The address of the program of threads, which is in no file of its own: bundles are one file. */
const urlOfThreads = () =>
  URL.createObjectURL(new Blob([threadProgram()], { type: "text/javascript" }));

async function startWorker(
  url: string,
  memory: WebAssembly.Memory,
  threads: number,
  index: number,
): Promise<Worker> {
  const refuse = (why: string) =>
    new DeviceError(
      `threads cannot be started${why ? ` (${why})` : ""}; a content security policy must allow ` +
        "worker-src blob:",
    );
  if (typeof Worker === "undefined") throw new DeviceError("there are no Workers here");
  const { promise, resolve, reject } = withResolvers<void>();
  let worker: Worker;
  try {
    worker = new Worker(url, { type: "module" });
  } catch (error) {
    throw refuse((error as Error).message);
  }
  worker.addEventListener("message", () => resolve(), { once: true });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    worker.terminate();
    reject(refuse(event.message ?? ""));
  });
  worker.postMessage({ memory, threads, index } satisfies ThreadSetup);
  await promise;
  return worker;
}

/** A buffer in the device's memory. */
export class WasmBuffer implements TensorBuffer {
  readonly dtype: DType;
  readonly length: number;
  readonly address: number;
  /** Another number whenever something was written. */
  version = 0;
  readonly #device: WasmDevice;
  #isDisposed = false;

  constructor(device: WasmDevice, length: number, dtype: DType = "f32", what = "a tensor") {
    this.#device = device;
    this.dtype = dtype;
    this.length = length;
    this.address = device.allocate(4 * length, what);
  }

  #view(offset: number, length: number): Float32Array | Int32Array {
    this.#device.check();
    if (this.#isDisposed) throw new DeviceError("Cannot reach a buffer that was disposed of");
    if (!(offset >= 0 && length >= 0 && offset + length <= this.length)) {
      throw new RangeError(
        `Cannot reach elements ${offset} to ${offset + length} of a buffer of ${this.length}`,
      );
    }
    const { buffer } = this.#device.memory, start = this.address + 4 * offset;
    return this.dtype === "i32"
      ? new Int32Array(buffer, start, length)
      : new Float32Array(buffer, start, length);
  }

  write(values: HostArray | readonly number[], offset = 0): void {
    this.#view(offset, values.length).set(values);
    this.version++;
  }

  place(offset: number, length: number): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
    this.version++;
    // Other threads wait meanwhile, so that it is as good as memory that is not shared.
    return this.#view(offset, length) as Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
  }

  async read(
    offset = 0,
    length: number = this.length - offset,
  ): Promise<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
    const view = await this.#view(offset, length);
    return view instanceof Int32Array ? new Int32Array(view) : new Float32Array(view);
  }

  [Symbol.dispose](): void {
    // The address may be somebody else's by the second time.
    if (!this.#isDisposed) this.#device.release(this.address);
    this.#isDisposed = true;
  }
}
