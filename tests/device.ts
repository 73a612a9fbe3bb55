/**
 * The GPU that tests run on: a real one, or Mesa's software Vulkan. Without one, tests fail.
 *
 * @module
 */

import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import type { WgslTarget } from "../src/gpu/wgsl/kernel.ts";

if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) {
  Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
}

/** Opens the GPU; throws if there is none. */
export async function openGpu(): Promise<GpuDevice> {
  const device = await GpuDevice.request();
  if (!device) throw new Error("There is no WebGPU adapter: deno task test can install one");
  return device;
}

/** The GPU, generating kernels for another kind of device than it is. */
export async function openGpuAs(changes: Partial<WgslTarget>): Promise<GpuDevice> {
  const device = await openGpu();
  Object.assign(device.target, changes);
  return device;
}

/** What kernels are generated for on a real GPU, and in a browser that grants nothing special. */
export const targets: Readonly<Record<string, Partial<WgslTarget>>> = {
  "this device": {},
  "a GPU without subgroups": { subgroup: 0, lanes: 64, steps: 8, workgroups: 1024 },
  "few buffers": { maxStorageBuffers: 8 },
};
