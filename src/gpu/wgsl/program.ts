/**
 * Compilation of graphs for WebGPU. A {@linkcode GpuProgram} is prebuilt pipelines and bind groups
 * over a few buffers; running it encodes them into one pass and makes one submit.
 *
 * @module
 */

import { describeStage, type KernelDescription, type ProgramDescription } from "../describe.ts";
import { type CompileOptions, limitError, type Program, type TensorBuffer } from "../device.ts";
import type { Graph } from "../graph.ts";
import { sizeOf } from "../../shape.ts";
import type { Storage } from "../storage.ts";
import { constantData, type Tensor } from "../tensor.ts";
import { type GpuDevice, GpuTensorBuffer } from "./device.ts";
import { type Dispatch, encode, prepare } from "./dispatch.ts";
import { bindBuffer, type Binding, bindingBytes, type Kernel } from "./kernel.ts";
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
    lowered = await tuneProgram(device, tuner, lowered, options);
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
  readonly #tensors = new Map<Tensor, GpuTensorBuffer>();

  constructor(device: GpuDevice, label: string, lowered: Lowered, options: CompileOptions) {
    this.#device = device;
    this.#label = label;
    this.#lowered = lowered;
    this.#given = options.buffers ?? {};
  }

  build(): GpuProgram {
    const { graph, stages, preparations, others, constants, memory } = this.#lowered;
    try {
      this.#allocateNamed();
      this.#allocateTemporary();
      this.#initialize();
      const kernels = [...preparations, ...others];
      const bind = (binding: Binding) => this.#bind(binding);
      const { dispatches, uniforms } = prepare(this.#device, this.#label, kernels, bind);
      const prepared = dispatches.slice(0, preparations.length);
      const dispatchOf = new Map(kernels.map((kernel, i) => [kernel, dispatches[i]]));
      this.#owned.push(uniforms);
      const description = {
        ...{ label: this.#label, memory },
        stages: stages.map(({ stage, kernels }) => describeStage(stage, kernels.map(describe))),
      };
      return new GpuProgram({
        ...{ device: this.#device, description, buffers: this.#named, owned: this.#owned },
        ...{ preparations: prepared, dispatches: dispatches.slice(preparations.length) },
        constants: this.#buffersOf(constants),
        written: this.#buffersOf([
          ...Object.values(graph.outputs),
          ...graph.updates.map(([state]) => state),
        ]),
        described: stages.flatMap((stage) => stage.kernels.map((k) => dispatchOf.get(k)!)),
      });
    } catch (error) {
      for (const buffer of this.#owned) buffer.destroy();
      throw error;
    }
  }

  /** Inputs, outputs and constants. */
  #allocateNamed(): void {
    for (const [node, name] of this.#lowered.layout.named) {
      const buffer = name === undefined ? this.#own(node) : this.#given[name] ?? this.#own(node);
      if (name !== undefined) {
        this.#checkGiven(name, node, buffer);
        this.#named[name] = buffer;
      }
      this.#tensors.set(node, buffer as GpuTensorBuffer);
      this.#buffers.set(node, (buffer as GpuTensorBuffer).buffer);
    }
  }

  #buffersOf(nodes: readonly Tensor[]): GpuTensorBuffer[] {
    return nodes.map((node) => this.#tensors.get(node)!);
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
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const buffers = slots.map((size) => {
      const buffer = this.#device.allocate(`temporary tensors of ${this.#label}`, size, usage);
      this.#owned.push(buffer);
      return buffer;
    });
    for (const [storage, slot] of slotOf) this.#buffers.set(storage, buffers[slot]);
  }

  /**
   * Writes constants, and has all other memory cleared. It would be before its first use in any case:
   * like this, it is while pipelines are compiled.
   */
  #initialize(): void {
    const { device } = this.#device, encoder = device.createCommandEncoder();
    for (const buffer of this.#owned) encoder.clearBuffer(buffer);
    device.queue.submit([encoder.finish()]);
    for (const [node, name] of this.#lowered.layout.named) {
      if (name === undefined) this.#tensors.get(node)!.write(constantData(node)!);
    }
  }

  #bind(binding: Binding): GPUBufferBinding {
    const { root, offset } = this.#lowered.layout.locate(binding.storage);
    return bindBuffer({ ...binding, storage: root }, this.#buffers.get(root)!, offset);
  }
}

const describe = ({ label, bindings, workgroups, code }: Kernel): KernelDescription => ({
  ...{ label, code, bytes: bindings.reduce((sum, b) => sum + bindingBytes(b), 0) },
  groups: workgroups.reduce((product, n) => product * n, 1),
});

/** What a program is made of. */
interface ProgramParts {
  readonly device: GpuDevice;
  readonly description: ProgramDescription;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  /** What a run consists of, and what prepares constants before the first one. */
  readonly dispatches: readonly Dispatch[];
  readonly preparations: readonly Dispatch[];
  /** All of them, as they are described. */
  readonly described: readonly Dispatch[];
  readonly constants: readonly GpuTensorBuffer[];
  readonly written: readonly GpuTensorBuffer[];
  readonly owned: readonly GPUBuffer[];
}

/** A compiled graph on a GPU. */
class GpuProgram implements Program {
  readonly label: string;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  readonly memory: number;
  readonly flops: number;
  readonly #parts: ProgramParts;
  /** The versions of the constants that were prepared. */
  #prepared = "";

  constructor(parts: ProgramParts) {
    const { description, buffers, owned } = parts;
    this.label = description.label;
    this.buffers = buffers;
    this.flops = description.stages.reduce((sum, stage) => sum + stage.flops, 0);
    this.memory = owned.reduce((n, buffer) => n + buffer.size, 0);
    this.#parts = parts;
  }

  get dispatches(): number {
    return this.#parts.dispatches.length;
  }

  describe(): ProgramDescription {
    return this.#parts.description;
  }

  async profile(): Promise<readonly number[]> {
    const { device, dispatches, described } = this.#parts;
    this.#play([], 1);
    const times = await timeDispatches(device, this.label, dispatches);
    this.#countWrites();
    const timeOf = new Map(dispatches.map((dispatch, i) => [dispatch, times[i]]));
    return described.map((dispatch) => timeOf.get(dispatch) ?? 0);
  }

  run(times = 1): void {
    this.#play(this.#parts.dispatches, times);
    this.#countWrites();
  }

  /** Runs dispatches, after what prepares constants if they have changed. */
  #play(dispatches: readonly Dispatch[], times: number): void {
    const { device, preparations, constants } = this.#parts;
    device.check();
    const versions = constants.map((buffer) => buffer.version).join();
    const isPrepared = !preparations.length || versions === this.#prepared;
    if (isPrepared && !dispatches.length) return;
    device.guard(`running ${this.label}`, () => {
      const encoder = device.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      if (!isPrepared) encode(pass, preparations);
      encode(pass, dispatches, times);
      pass.end();
      device.device.queue.submit([encoder.finish()]);
    });
    this.#prepared = versions;
  }

  #countWrites(): void {
    for (const buffer of this.#parts.written) buffer.version++;
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#parts.owned) buffer.destroy();
  }
}
