/**
 * The choice of a device.
 *
 * @module
 */

import { type Device, DeviceError } from "./device.ts";
import { ReferenceDevice } from "./reference.ts";
import { GpuDevice } from "./wgsl/device.ts";

/** `gpu` for WebGPU, `cpu` for the interpreter, `auto` for WebGPU where there is an adapter. */
export type DeviceKind = "auto" | "gpu" | "cpu";

/** Debian's packages that make an adapter of the CPU, for messages. */
export const SOFTWARE_ADAPTER_PACKAGES = "libvulkan1 mesa-vulkan-drivers";

/**
 * Opens a device. Dispose of it to free its memory.
 *
 * @param kind Which; or a WebGPU device that was requested elsewhere, which is destroyed with it.
 * @default {"auto"}
 * @throws {DeviceError} If `gpu` is asked for and there is no adapter.
 *
 * @example Whatever there is
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
export async function openDevice(kind: DeviceKind | GPUDevice = "auto"): Promise<Device> {
  if (typeof kind !== "string") return new GpuDevice(kind);
  if (kind === "cpu") return new ReferenceDevice();
  const device = await GpuDevice.request();
  if (device) return device;
  if (kind === "auto") return new ReferenceDevice();
  throw new DeviceError(
    `There is no WebGPU adapter; on Debian, ${SOFTWARE_ADAPTER_PACKAGES} make one of the CPU`,
  );
}
