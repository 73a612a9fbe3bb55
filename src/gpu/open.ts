/**
 * The choice of a device.
 *
 * @module
 */

import { type Device, DeviceError } from "./device.ts";
import { WasmDevice } from "./wasm/device.ts";
import { GpuDevice } from "./wgsl/device.ts";
import { whyInsecure } from "./secure_context.ts";
import type { Tuning } from "./wgsl/tuner.ts";

/** `gpu` for WebGPU, `cpu` for WebAssembly, `auto` for a GPU if there is a real one. */
export type DeviceKind = "auto" | "gpu" | "cpu";

/** Settings of {@linkcode openDevice}. */
export interface OpenOptions {
  /** Threads of the CPU device. @default {as many as there are cores} */
  readonly threads?: number;
  /** Has a real GPU choose its kernels by measuring, instead of by rules. */
  readonly tuning?: Tuning;
  /**
   * Is told, in a sentence, why `auto` did not take a GPU, and why the CPU computes on fewer threads
   * than were wanted.
   */
  readonly onNotice?: (notice: string) => void;
}

/**
 * Opens a device. Dispose of it to free its memory and end its threads.
 *
 * @param kind Which; or a WebGPU device that was requested elsewhere, which is destroyed with it.
 * @default {"auto"}
 * @throws {DeviceError} If `gpu` is asked for and there is no adapter; if the CPU is to compute and
 * there is no WebAssembly, or a content security policy forbids it.
 *
 * @example Whatever is best
 * ```ts
 * import { openDevice } from "@x/ddpm";
 *
 * using device = await openDevice("auto");
 * console.log(device.kind, device.name);
 * ```
 *
 * @example A device of one's own, in a browser for instance
 * ```ts
 * import { openDevice } from "@x/ddpm";
 *
 * const adapter = await navigator.gpu.requestAdapter();
 * if (adapter) {
 *   using device = await openDevice(await adapter.requestDevice());
 *   console.log(device.name);
 * }
 * ```
 */
export async function openDevice(
  kind: DeviceKind | GPUDevice = "auto",
  { threads, tuning, onNotice }: OpenOptions = {},
): Promise<Device> {
  if (typeof kind !== "string") return new GpuDevice(kind, tuning);
  if (kind === "cpu") return await WasmDevice.open(threads, onNotice);
  const gpu = await GpuDevice.request(tuning);
  if (gpu && (kind === "gpu" || !gpu.isSoftware)) return gpu;
  if (kind === "gpu") throw new DeviceError(`There is ${missing()}`);
  const cpu = await WasmDevice.open(threads, onNotice);
  const reason = gpu
    ? `the only WebGPU adapter is a CPU too (${gpu.name})`
    : `there is ${missing()}`;
  gpu?.[Symbol.dispose]();
  onNotice?.(`${reason}; computing on the ${cpu.name}`);
  return cpu;
}

/** What there is not, where there is no GPU. */
function missing(): string {
  if (globalThis.navigator?.gpu) return "no WebGPU adapter";
  const why = whyInsecure();
  return `no WebGPU${why ? `: ${why}` : " here"}`;
}
