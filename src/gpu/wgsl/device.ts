/**
 * WebGPU as a {@linkcode Device}.
 *
 * @module
 */

import { withResolvers } from "../../ponyfills.ts";
import {
  type CompileOptions,
  type Device,
  DeviceError,
  LimitError,
  noHalves,
  type Precision,
  type Program,
  type TensorBuffer,
} from "../device.ts";
import type { Graph } from "../graph.ts";
import type { DType } from "../tensor.ts";
import type { WgslTarget } from "./kernel.ts";
import type { MemoryPlan } from "../describe.ts";
import { lowerProgram } from "./lower.ts";
import { compileProgram } from "./program.ts";
import { Tuner, type Tuning } from "./tuner.ts";
import { formatBytePair, formatBytes } from "../../units.ts";

/** Limits that are raised to what the adapter has. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupStorageSize",
] as const;

/** Bytes that may be written without a submit. */
const MAX_WRITTEN = 2 ** 24;
/** How long to wait to be told that the device was lost, when something broke off. */
const LOSS_MS = 100;

/** The feature of adapters whose kernels know 16-bit floats. */
const HALVES = "shader-f16" satisfies GPUFeatureName;

const nameOf = (info: GPUAdapterInfo): string =>
  info.description || [info.vendor, info.architecture].filter((s) => s).join(" ") || "unknown GPU";

const isSoftware = (info: GPUAdapterInfo): boolean =>
  info.isFallbackAdapter || /llvmpipe|swiftshader/i.test(nameOf(info));

/** A GPU, or a CPU that poses as one. */
export class GpuDevice implements Device {
  readonly kind = "gpu";
  readonly name: string;
  /** Whether it is a CPU that poses as a GPU. */
  readonly isSoftware: boolean;
  /** What kernels are generated for. */
  readonly target: WgslTarget;
  /** Chooses kernels by measuring, where that is wanted; rules do otherwise. */
  readonly tuner: Tuner | undefined;
  readonly device: GPUDevice;
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  #failure: DeviceError | undefined;
  /** Bytes that were written one after the other. */
  #written = 0;
  #isClosed = false;

  /**
   * Wraps a device that was requested elsewhere, in a browser for instance.
   *
   * @param tuning Given, kernels are chosen by measuring.
   */
  constructor(device: GPUDevice, tuning?: Tuning) {
    const info = device.adapterInfo, { limits } = device;
    this.device = device;
    this.name = nameOf(info);
    this.isSoftware = isSoftware(info);
    const hasSubgroups = device.features.has("subgroups") &&
      info.subgroupMinSize === info.subgroupMaxSize;
    this.target = {
      // A CPU wants few, long invocations; a GPU wants many.
      ...(this.isSoftware
        ? { lanes: 8, steps: 256, workgroups: 16, fusesOperations: false }
        : { lanes: 64, steps: 8, workgroups: 1024, fusesOperations: true }),
      subgroup: hasSubgroups ? info.subgroupMinSize : 0,
      maxStorageBuffers: Math.min(limits.maxStorageBuffersPerShaderStage, 16),
      maxBindingElements: Math.floor(limits.maxStorageBufferBindingSize / 4),
    };
    this.tuner = tuning && new Tuner(this, tuning);
    device.addEventListener("uncapturederror", (event) => {
      this.fail("using the device", (event as GPUUncapturedErrorEvent).error);
    });
    device.lost.then(({ reason, message }) => {
      if (this.#isClosed) return;
      this.#failure ??= new DeviceError(`The device ${this.name} was lost (${reason}): ${message}`);
    });
  }

  /**
   * Requests the best adapter, with the limits it has; `undefined` where there is none.
   *
   * @param tuning For real GPUs; the rules were made by measuring on software adapters.
   */
  static async request(tuning?: Tuning): Promise<GpuDevice | undefined> {
    // `gpu` is missing in browsers without WebGPU, and all of it in Node 20.
    const adapter = await globalThis.navigator?.gpu?.requestAdapter({
      powerPreference: "high-performance",
    });
    if (!adapter) return undefined;
    const used = isSoftware(adapter.info) ? undefined : tuning;
    const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
    const optional: GPUFeatureName[] = ["timestamp-query", HALVES];
    const requiredFeatures = optional.filter((name) => adapter.features.has(name));
    try {
      // Deno grants subgroups without listing them.
      const features = [...requiredFeatures, "subgroups" as GPUFeatureName];
      return new GpuDevice(
        await adapter.requestDevice({ requiredLimits, requiredFeatures: features }),
        used,
      );
    } catch {
      const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
      return new GpuDevice(device, used);
    }
  }

  buffer(length: number, dtype: DType = "f32"): GpuTensorBuffer {
    return new GpuTensorBuffer(this, length, dtype);
  }

  compile(graph: Graph, options: CompileOptions = {}): Promise<Program> {
    return compileProgram(this, graph, options);
  }

  plan(graph: Graph, options: CompileOptions = {}): MemoryPlan {
    return lowerProgram(this, graph, options).memory;
  }

  async idle(): Promise<void> {
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Remembers the first thing that went wrong. */
  fail(activity: string, error: GPUError | Error): void {
    this.#failure ??= new DeviceError(`Failed ${activity} on ${this.name}: ${error.message}`, {
      cause: error,
    });
  }

  /** Remembers why something was broken off: by a loss of the device, which browsers tell later. */
  async failLater(activity: string, error: Error): Promise<void> {
    const { promise, resolve } = withResolvers<void>(), timer = setTimeout(resolve, LOSS_MS);
    await Promise.race([this.device.lost, promise]);
    clearTimeout(timer);
    this.fail(activity, error);
  }

  /** Throws if tensors cannot be kept like this. */
  checkPrecision(precision: Precision): void {
    if (precision === "f16" && !this.device.features.has(HALVES)) throw noHalves(this.name);
  }

  /** Throws what went wrong, if something did. */
  check(): void {
    if (this.#failure) throw this.#failure;
    if (this.#isClosed) throw new DeviceError(`The device ${this.name} was closed`);
  }

  /** Does something, and has errors of the device remembered with what was being done. */
  guard<R>(activity: string, action: () => R): { result: R; done: Promise<void> } {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    try {
      const result = action();
      const scopes = [this.device.popErrorScope(), this.device.popErrorScope()];
      const done = Promise.all(scopes).then(
        (errors) => errors.forEach((error) => error && this.fail(activity, error)),
        () => {}, // The device is lost, which is reported elsewhere.
      );
      return { result, done };
    } catch (error) {
      this.device.popErrorScope().catch(() => {});
      this.device.popErrorScope().catch(() => {});
      throw error;
    }
  }

  /** GPU memory; checked against the device's limits, since Deno would only fail later. */
  allocate(label: string, bytes: number, usage: number): GPUBuffer {
    const size = bufferSize(bytes), { maxBufferSize } = this.device.limits;
    if (size > maxBufferSize) {
      const [wanted, allowed] = formatBytePair(size, maxBufferSize);
      throw new LimitError(
        `Cannot allocate ${wanted} for ${label}: ${this.name} allows ${allowed} in a buffer`,
        ...[size, maxBufferSize] as const,
      );
    }
    return this.guard(
      `allocating ${formatBytes(size)} for ${label}`,
      () => this.device.createBuffer({ label, size, usage }),
    ).result;
  }

  /** Writes to a buffer, in order with programs. */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBuffer>): void {
    const { queue } = this.device;
    queue.writeBuffer(buffer, offset, data);
    this.#written += data.byteLength;
    if (this.#written < MAX_WRITTEN) return;
    // What is written is kept aside up to the next submit.
    queue.submit([]);
    this.#written = 0;
  }

  /** The pipeline of a WGSL text; equal texts share one. */
  pipeline(label: string, code: string): GPUComputePipeline {
    let pipeline = this.#pipelines.get(code);
    if (!pipeline) {
      // Browsers want the extension to be enabled; Deno does not know it.
      const isListed = this.device.features.has("subgroups") && !("Deno" in globalThis);
      const enable = isListed && code.includes("subgroup") ? "enable subgroups;\n" : "";
      const module = this.device.createShaderModule({ label, code: enable + code });
      pipeline = this.device.createComputePipeline({ label, layout: "auto", compute: { module } });
      this.#pipelines.set(code, pipeline);
    }
    return pipeline;
  }

  /** How many different kernels were compiled so far. */
  get pipelines(): number {
    return this.#pipelines.size;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#pipelines.clear();
    this.device.destroy();
  }
}

/** Bytes of the buffer that holds as many: whole vectors of four, and at least one. */
export const bufferSize = (bytes: number): number => Math.max(16, Math.ceil(bytes / 16) * 16);

/** A buffer in GPU memory. */
export class GpuTensorBuffer implements TensorBuffer {
  readonly dtype: DType;
  readonly length: number;
  readonly buffer: GPUBuffer;
  /** Changes whenever somebody writes. */
  version = 0;
  readonly #device: GpuDevice;

  constructor(device: GpuDevice, length: number, dtype: DType) {
    this.#device = device;
    this.dtype = dtype;
    this.length = length;
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.buffer = device.allocate("a tensor", length * 4, STORAGE | COPY_SRC | COPY_DST);
  }

  write(values: ArrayLike<number>, offset = 0): void {
    // Deno aborts the process on empty and on overlong writes.
    checkRange("write", this.length, offset, values.length);
    if (values.length === 0) return;
    this.version++;
    const Type = this.dtype === "i32" ? Int32Array : Float32Array;
    const isReady = values instanceof Type && values.buffer instanceof ArrayBuffer;
    const data = isReady ? values as Float32Array<ArrayBuffer> : Type.from(values);
    this.#device.check();
    this.#device.write(this.buffer, offset * 4, data);
  }

  async read(
    offset = 0,
    length: number = this.length - offset,
  ): Promise<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
    checkRange("read", this.length, offset, length);
    const device = this.#device, size = length * 4;
    device.check();
    if (length === 0) return this.dtype === "i32" ? new Int32Array() : new Float32Array();
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = device.allocate("reading back", size, usage);
    try {
      const { done } = device.guard("reading back", () => {
        const encoder = device.device.createCommandEncoder();
        encoder.copyBufferToBuffer(this.buffer, offset * 4, staging, 0, size);
        device.device.queue.submit([encoder.finish()]);
      });
      await Promise.all([
        staging.mapAsync(GPUMapMode.READ, 0, size).catch((error) =>
          device.failLater("reading back", error)
        ),
        done,
      ]);
      device.check();
      const bytes = staging.getMappedRange(0, size).slice(0);
      return this.dtype === "i32" ? new Int32Array(bytes) : new Float32Array(bytes);
    } finally {
      staging.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.buffer.destroy();
  }
}

function checkRange(action: string, size: number, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= size)) {
    throw new RangeError(
      `Cannot ${action} elements ${offset} to ${offset + length} of a buffer of ${size}`,
    );
  }
}
