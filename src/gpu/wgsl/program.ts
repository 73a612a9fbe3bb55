/**
 * Compilation of graphs for WebGPU. A {@linkcode GpuProgram} is prebuilt pipelines and bind groups
 * over a few buffers; running it encodes them into one pass and makes one submit.
 *
 * @module
 */

import { describeStage, type KernelDescription, type ProgramDescription } from "../describe.ts";
import { type CompileOptions, limitError, type Program, type TensorBuffer } from "../device.ts";
import type { Graph } from "../graph.ts";
import { sizeOf } from "../shape.ts";
import { elementBytes, type Storage } from "../storage.ts";
import { constantData, type Tensor } from "../tensor.ts";
import { type GpuDevice, GpuTensorBuffer } from "./device.ts";
import { type Dispatch, encode, prepare } from "./dispatch.ts";
import { type Binding, bindingBytes, type Kernel } from "./kernel.ts";
import { type Lowered, lowerProgram, tuneProgram } from "./lower.ts";
import { timeDispatches } from "./profile.ts";

/** Compiles a graph; see {@linkcode GpuDevice.compile}. */
export async function compileProgram(
  device: GpuDevice,
  graph: Graph,
  options: CompileOptions,
): Promise<Program> {
  device.check();
  const label = options.label ?? "a program";
  const { tuner } = device;
  let lowered = lowerProgram(device, graph, options);
  checkMemory(lowered, label, device);
  if (tuner) {
    lowered = await tuneProgram(device, tuner, graph, options);
    checkMemory(lowered, label, device);
  }
  const { result, done } = device.guard(
    `compiling ${label}`,
    () => new Builder(device, label, lowered, options).build(),
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

function checkMemory({ memory }: Lowered, label: string, { name }: GpuDevice): void {
  const impossible = limitError(memory, label, name);
  if (impossible) throw impossible;
}

/** Gives tensors their memory and kernels their bindings. */
class Builder {
  readonly #device: GpuDevice;
  readonly #label: string;
  readonly #lowered: Lowered;
  readonly #given: Readonly<Record<string, TensorBuffer>>;
  readonly #owned: GPUBuffer[] = [];
  readonly #buffers = new Map<Storage, GPUBuffer>();
  readonly #named: Record<string, TensorBuffer> = {};

  constructor(device: GpuDevice, label: string, lowered: Lowered, options: CompileOptions) {
    this.#device = device;
    this.#label = label;
    this.#lowered = lowered;
    this.#given = options.buffers ?? {};
  }

  build(): GpuProgram {
    const { stages, memory } = this.#lowered;
    try {
      this.#allocateNamed();
      this.#allocateTemporary();
      const kernels = stages.flatMap((stage) => stage.kernels);
      const bind = (binding: Binding) => this.#bind(binding);
      const { dispatches, uniforms } = prepare(this.#device, this.#label, kernels, bind);
      this.#owned.push(uniforms);
      const description = {
        ...{ label: this.#label, memory },
        stages: stages.map(({ stage, kernels }) => describeStage(stage, kernels.map(describe))),
      };
      return new GpuProgram(this.#device, description, this.#named, dispatches, this.#owned);
    } catch (error) {
      for (const buffer of this.#owned) buffer.destroy();
      throw error;
    }
  }

  /** Inputs, outputs and constants. */
  #allocateNamed(): void {
    for (const [node, name] of this.#lowered.layout.named) {
      const buffer = name === undefined ? this.#own(node) : this.#given[name] ?? this.#own(node);
      if (name === undefined) buffer.write(constantData(node)!);
      else {
        this.#checkGiven(name, node, buffer);
        this.#named[name] = buffer;
      }
      this.#buffers.set(node, (buffer as GpuTensorBuffer).buffer);
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

  /** Everything between the kernels, as the memory plan says. */
  #allocateTemporary(): void {
    const { slots, slotOf } = this.#lowered.temporary;
    const usage = GPUBufferUsage.STORAGE;
    const buffers = slots.map((size) => {
      const buffer = this.#device.allocate(`temporary tensors of ${this.#label}`, size, usage);
      this.#owned.push(buffer);
      return buffer;
    });
    for (const [storage, slot] of slotOf) this.#buffers.set(storage, buffers[slot]);
  }

  #bind({ storage, offset, length }: Binding): GPUBufferBinding {
    const { root, offset: start } = this.#lowered.layout.locate(storage);
    const bytes = elementBytes(root), size = Math.ceil(length / 4) * 4 * bytes;
    return { buffer: this.#buffers.get(root)!, offset: (start + offset) * bytes, size };
  }
}

const describe = ({ label, bindings, workgroups, code }: Kernel): KernelDescription => ({
  ...{ label, code, bytes: bindings.reduce((sum, b) => sum + bindingBytes(b), 0) },
  groups: workgroups.reduce((product, n) => product * n, 1),
});

/** A compiled graph on a GPU. */
class GpuProgram implements Program {
  readonly label: string;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  readonly memory: number;
  readonly flops: number;
  readonly #device: GpuDevice;
  readonly #description: ProgramDescription;
  readonly #dispatches: readonly Dispatch[];
  readonly #owned: readonly GPUBuffer[];

  constructor(
    device: GpuDevice,
    description: ProgramDescription,
    buffers: Readonly<Record<string, TensorBuffer>>,
    dispatches: readonly Dispatch[],
    owned: readonly GPUBuffer[],
  ) {
    this.label = description.label;
    this.buffers = buffers;
    this.flops = description.stages.reduce((sum, stage) => sum + stage.flops, 0);
    this.memory = owned.reduce((n, buffer) => n + buffer.size, 0);
    this.#device = device;
    this.#description = description;
    this.#dispatches = dispatches;
    this.#owned = owned;
  }

  get dispatches(): number {
    return this.#dispatches.length;
  }

  describe(): ProgramDescription {
    return this.#description;
  }

  profile(): Promise<readonly number[]> {
    this.#device.check();
    return timeDispatches(this.#device, this.label, this.#dispatches);
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
