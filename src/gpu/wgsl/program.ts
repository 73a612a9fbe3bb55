/**
 * Compilation of graphs for WebGPU. A {@linkcode GpuProgram} is prebuilt pipelines and bind groups
 * over a few buffers; running it encodes them into one pass and makes one submit.
 *
 * @module
 */

import { type CompileOptions, DeviceError, type Program, type TensorBuffer } from "../device.ts";
import { fuse } from "../fuse.ts";
import type { Placements, Stage } from "../stage.ts";
import { type Graph, nodesOf } from "../graph.ts";
import { hasGaps } from "../ops/concat.ts";
import { type Lifetime, planMemory } from "../plan.ts";
import { sizeOf } from "../shape.ts";
import { Scratch, type Storage, storageSize } from "../storage.ts";
import { simplify } from "../simplify.ts";
import { constantData, inputName, type Tensor } from "../tensor.ts";
import { type GpuDevice, GpuTensorBuffer } from "./device.ts";
import { type Dispatch, encode, prepare } from "./dispatch.ts";
import type { Binding, Kernel } from "./kernel.ts";
import { lowerLoop } from "./loop.ts";
import { lowerByRule } from "./tuner.ts";

/** Compiles a graph; see {@linkcode GpuDevice.compile}. */
export async function compileProgram(
  device: GpuDevice,
  graph: Graph,
  options: CompileOptions,
): Promise<Program> {
  device.check();
  const label = options.label ?? "a program";
  const simple = simplify(graph);
  const { stages, placements } = fuse(simple, {
    maxStorages: device.target.maxStorageBuffers,
    fusesOperations: false,
  });
  const kernels: Kernel[] = [];
  for (const stage of stages) kernels.push(...await lowerStage(stage, device));
  const { result, done } = device.guard(
    `compiling ${label}`,
    () => new Builder(device, label, simple, placements, options).build(kernels),
  );
  await done;
  try {
    device.check();
  } catch (error) {
    result[Symbol.dispose]();
    throw error;
  }
  return result;
}

async function lowerStage(stage: Stage, { target, tuner }: GpuDevice): Promise<readonly Kernel[]> {
  if ("loop" in stage) return lowerLoop(stage.loop, target);
  const { node } = stage;
  const { variants, loops } = node.op;
  if (!variants && loops) return loops(node).flatMap((loop) => lowerLoop(loop, target));
  return tuner ? await tuner.lower(node) : lowerByRule(node, target);
}

/** Gives tensors their memory and kernels their bindings. */
class Builder {
  readonly #device: GpuDevice;
  readonly #label: string;
  readonly #graph: Graph;
  readonly #placements: Placements;
  readonly #given: Readonly<Record<string, TensorBuffer>>;
  readonly #owned: GPUBuffer[] = [];
  readonly #buffers = new Map<Storage, GPUBuffer>();
  readonly #named: Record<string, TensorBuffer> = {};

  constructor(
    device: GpuDevice,
    label: string,
    graph: Graph,
    placements: Placements,
    options: CompileOptions,
  ) {
    this.#device = device;
    this.#label = label;
    this.#graph = graph;
    this.#placements = placements;
    this.#given = options.buffers ?? {};
  }

  build(kernels: readonly Kernel[]): GpuProgram {
    try {
      this.#allocateNamed();
      this.#allocateTemporary(kernels);
      const bind = (binding: Binding) => this.#bind(binding);
      const { dispatches, uniforms } = prepare(this.#device, this.#label, kernels, bind);
      this.#owned.push(uniforms);
      const flops = nodesOf(this.#graph).reduce((n, x) => n + (x.op.flops?.(x) ?? 0), 0);
      return new GpuProgram(
        this.#device,
        this.#label,
        this.#named,
        dispatches,
        this.#owned,
        flops,
      );
    } catch (error) {
      for (const buffer of this.#owned) buffer.destroy();
      throw error;
    }
  }

  /** Inputs, outputs and constants. */
  #allocateNamed(): void {
    const outputs = new Map(Object.entries(this.#graph.outputs).map(([name, x]) => [x, name]));
    for (const node of nodesOf(this.#graph)) {
      const name = inputName(node) ?? outputs.get(node), data = constantData(node);
      if (name !== undefined) {
        const buffer = this.#given[name] ?? this.#own(node);
        this.#checkGiven(name, node, buffer);
        this.#named[name] = buffer;
        this.#buffers.set(node, (buffer as GpuTensorBuffer).buffer);
      } else if (data) {
        const buffer = this.#own(node);
        buffer.write(data);
        this.#buffers.set(node, buffer.buffer);
      }
    }
  }

  #own(node: Tensor): GpuTensorBuffer {
    const buffer = this.#device.buffer(sizeOf(node.shape), node.dtype);
    this.#owned.push(buffer.buffer);
    return buffer;
  }

  #checkGiven(name: string, node: Tensor, buffer: TensorBuffer): void {
    if (
      buffer instanceof GpuTensorBuffer && buffer.dtype === node.dtype &&
      buffer.length === sizeOf(node.shape)
    ) return;
    throw new TypeError(
      `Cannot compile ${this.#label}: ${name} wants a buffer of ${sizeOf(node.shape)} ` +
        `${node.dtype} on this device, not of ${buffer.length} ${buffer.dtype}`,
    );
  }

  /** Where a storage lies: what it is a part of, and the element it starts at. */
  #locate(storage: Storage): { root: Storage; offset: number } {
    const place = this.#placements.get(storage as Tensor);
    if (!place) return { root: storage, offset: 0 };
    const { root, offset } = this.#locate(place.within);
    return { root, offset: offset + place.offset };
  }

  /** Everything between the kernels, as the memory plan says. */
  #allocateTemporary(kernels: readonly Kernel[]): void {
    const lifetimes = new Map<Storage, Lifetime<Storage>>();
    kernels.forEach((kernel, i) => {
      for (const { storage } of kernel.bindings) {
        const key = this.#locate(storage).root;
        if (this.#buffers.has(key)) continue;
        const isWhole = !(key instanceof Scratch) && hasGaps(key);
        const first = isWhole ? 0 : lifetimes.get(key)?.first ?? i;
        const last = isWhole ? kernels.length : i;
        lifetimes.set(key, { key, size: storageSize(key) * 4, first, last });
      }
    });
    const { slots, slotOf } = planMemory([...lifetimes.values()]);
    const usage = GPUBufferUsage.STORAGE;
    const buffers = slots.map((size) => {
      const buffer = this.#device.allocate(`temporary tensors of ${this.#label}`, size, usage);
      this.#owned.push(buffer);
      return buffer;
    });
    for (const [storage, slot] of slotOf) this.#buffers.set(storage, buffers[slot]);
  }

  #bind({ storage, offset, length }: Binding): GPUBufferBinding {
    const { root, offset: start } = this.#locate(storage);
    const limit = this.#device.target.maxBindingElements;
    if (length > limit) {
      throw new DeviceError(
        `Cannot run ${this.#label}: a tensor of ${length * 4} bytes is more than the ${
          limit * 4
        } ` +
          `that ${this.#device.name} lets a kernel see`,
      );
    }
    const size = Math.ceil(length / 4) * 16;
    return { buffer: this.#buffers.get(root)!, offset: (start + offset) * 4, size };
  }
}

/** A compiled graph on a GPU. */
class GpuProgram implements Program {
  readonly label: string;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  readonly memory: number;
  readonly flops: number;
  readonly #device: GpuDevice;
  readonly #dispatches: readonly Dispatch[];
  readonly #owned: readonly GPUBuffer[];

  constructor(
    device: GpuDevice,
    label: string,
    buffers: Readonly<Record<string, TensorBuffer>>,
    dispatches: readonly Dispatch[],
    owned: readonly GPUBuffer[],
    flops: number,
  ) {
    this.label = label;
    this.buffers = buffers;
    this.flops = flops;
    this.memory = owned.reduce((n, buffer) => n + buffer.size, 0);
    this.#device = device;
    this.#dispatches = dispatches;
    this.#owned = owned;
  }

  get dispatches(): number {
    return this.#dispatches.length;
  }

  run(times = 1): void {
    this.#device.check();
    const { device } = this.#device;
    this.#device.guard(`running ${this.label}`, () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      encode(pass, this.#dispatches, times);
      pass.end();
      device.queue.submit([encoder.finish()]);
    });
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#owned) buffer.destroy();
  }
}
