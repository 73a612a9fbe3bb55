/**
 * The GPU that tests run on: a real one, or Mesa's software Vulkan. Without one, tests fail.
 *
 * @module
 */

import type { CompileOptions, Device } from "../src/gpu/device.ts";
import type { Graph } from "../src/gpu/graph.ts";
import { WasmDevice } from "../src/gpu/wasm/device.ts";
import type { WasmTarget } from "../src/gpu/wasm/kernel.ts";
import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import type { WgslTarget } from "../src/gpu/wgsl/kernel.ts";
import { lowerProgram } from "../src/gpu/wgsl/lower.ts";

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

/** The CPU, generating code as if V8 fused pairs of vectors or not. */
export async function openCpuAs(
  threads: number,
  changes: Partial<WasmTarget>,
): Promise<WasmDevice> {
  const device = await WasmDevice.open(threads);
  Object.assign(device.target, changes);
  return device;
}

/** Devices, as they are and as they could be, which all must compute the same. */
export const devices: Readonly<Record<string, () => Promise<Device>>> = {
  "this GPU": openGpu,
  "a GPU without subgroups": () =>
    openGpuAs({ subgroup: 0, lanes: 64, steps: 8, workgroups: 1024, fusesOperations: true }),
  "a GPU with large tiles": () =>
    openGpuAs({ subgroup: 0, tile: "128x128", lanes: 64, steps: 8, workgroups: 1024 }),
  "a GPU with small tiles": () =>
    openGpuAs({ subgroup: 0, tile: "64x64", lanes: 64, steps: 8, workgroups: 64 }),
  "a GPU with few buffers": () => openGpuAs({ maxStorageBuffers: 8 }),
  "a CPU with one thread": () => openCpuAs(1, {}),
  "a CPU with three threads, above 2 GiB": async () => {
    const device = await openCpuAs(3, {});
    // Memory that nobody touches, so that all other addresses are negative as signed integers.
    device.buffer(2 ** 29);
    return device;
  },
  "a CPU with wide vectors": () => openCpuAs(2, { pair: 2 }),
};

/**
 * Which programs have run on a GPU, whatever it was taken for: those of the same kernels need not run
 * again, for they would do the same, and software adapters compile slowly.
 */
export class RunPrograms {
  readonly #seen = new Set<string>();

  /** Whether the program of a graph is among them; it is from now on. Never those of other devices. */
  has(device: Device, graph: Graph, options: CompileOptions = {}): boolean {
    if (!(device instanceof GpuDevice)) return false;
    const kernels = lowerProgram(device, graph, options).stages.flatMap((stage) => stage.kernels);
    const key = JSON.stringify(
      kernels.map(({ code, uniforms, workgroups, bindings }) => [
        ...[code, [...uniforms], workgroups],
        bindings.map(({ offset, length }) => [offset, length]),
      ]),
    );
    if (this.#seen.has(key)) return true;
    this.#seen.add(key);
    return false;
  }
}
