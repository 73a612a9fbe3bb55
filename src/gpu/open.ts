/**
 * The choice of a device.
 *
 * @module
 */

import { type Device, DeviceError } from "./device.ts";
import { WasmDevice } from "./wasm/device.ts";
import { GpuDevice } from "./wgsl/device.ts";

/** `gpu` for WebGPU, `cpu` for WebAssembly, `auto` for a GPU if there is a real one. */
export type DeviceKind = "auto" | "gpu" | "cpu";

/** Debian's packages that make a WebGPU adapter of the CPU, for messages. */
export const SOFTWARE_ADAPTER_PACKAGES = "libvulkan1 mesa-vulkan-drivers";

/** Settings of {@linkcode openDevice}. */
export interface OpenOptions {
  /** Threads of the CPU device. @default {as many as there are cores} */
  readonly threads?: number;
  /** Is told, in a sentence, why `auto` did not take a GPU. */
  readonly onNotice?: (notice: string) => void;
}

/**
 * Opens a device. Dispose of it to free its memory and end its threads.
 *
 * @throws {DeviceError} If `gpu` is asked for and there is no adapter.
 *
 * @example
 * ```ts
 * import { openDevice } from "@x/ddpm";
 *
 * using device = await openDevice("auto");
 * console.log(device.kind, device.name);
 * ```
 */
export async function openDevice(
  kind: DeviceKind = "auto",
  { threads, onNotice }: OpenOptions = {},
): Promise<Device> {
  if (kind === "cpu") return await WasmDevice.open(threads);
  const gpu = await GpuDevice.request();
  if (gpu && (kind === "gpu" || !gpu.isSoftware)) return gpu;
  if (kind === "gpu") {
    throw new DeviceError(
      `There is no WebGPU adapter; on Debian, ${SOFTWARE_ADAPTER_PACKAGES} make one of the CPU`,
    );
  }
  const cpu = await WasmDevice.open(threads);
  const reason = gpu
    ? `the only WebGPU adapter is a CPU too (${gpu.name})`
    : `there is no WebGPU adapter (on Debian, ${SOFTWARE_ADAPTER_PACKAGES} give a software one)`;
  gpu?.[Symbol.dispose]();
  onNotice?.(`${reason}; computing on the ${cpu.name}`);
  return cpu;
}
