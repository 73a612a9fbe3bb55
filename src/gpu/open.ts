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
export async function openDevice(kind: DeviceKind = "auto"): Promise<Device> {
  if (kind === "cpu") return new ReferenceDevice();
  const device = await GpuDevice.request();
  if (device) return device;
  if (kind === "auto") return new ReferenceDevice();
  throw new DeviceError(
    `There is no WebGPU adapter; on Debian, ${SOFTWARE_ADAPTER_PACKAGES} make one of the CPU`,
  );
}
