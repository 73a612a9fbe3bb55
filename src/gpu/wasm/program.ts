/**
 * Compilation of graphs for the CPU. A {@linkcode WasmProgram} is one WebAssembly module and one tape
 * of calls; running it is one command to all threads.
 *
 * @module
 */

import { describeStage, type KernelDescription, type ProgramDescription } from "../describe.ts";
import {
  type CompileOptions,
  DeviceError,
  limitError,
  type Program,
  type TensorBuffer,
} from "../device.ts";
import type { Graph } from "../graph.ts";
import { sizeOf } from "../../shape.ts";
import { type Storage, storageBytes } from "../storage.ts";
import { constantData, type DType, type Tensor } from "../tensor.ts";
import { Module } from "./assembler.ts";
import { WasmBuffer, type WasmDevice } from "./device.ts";
import { parameterTypes, type WasmKernel } from "./kernel.ts";
import { type Lowered, lowerProgram } from "./lower.ts";
import { encodeTape, MAX_ENTRIES, type TapeEntry } from "./threads.ts";

/** Compiles a graph; see {@linkcode WasmDevice.compile}. */
export function compileProgram(
  device: WasmDevice,
  graph: Graph,
  options: CompileOptions,
): WasmProgram {
  const lowered = lowerProgram(device, graph, options);
  const impossible = limitError(lowered.memory, options.label ?? "a program", device.name);
  if (impossible) throw impossible;
  return new Builder(device, lowered, options).build();
}

/** Ranges of memory that kernels without a barrier between them touch: each is compared with all others. */
const MOST_OPEN = 256;

/** Numbers that tell programs apart. */
let nextProgram = 0;

/** Gives tensors their memory and kernels their pointers. */
class Builder {
  readonly #device: WasmDevice;
  readonly #label: string;
  readonly #lowered: Lowered;
  readonly #options: CompileOptions;
  readonly #owned: WasmBuffer[] = [];
  readonly #addresses = new Map<Storage, number>();
  readonly #named: Record<string, TensorBuffer> = {};
  readonly #buffers = new Map<Tensor, WasmBuffer>();
  #bytes = 0;

  constructor(device: WasmDevice, lowered: Lowered, options: CompileOptions) {
    this.#device = device;
    this.#label = options.label ?? "a program";
    this.#lowered = lowered;
    this.#options = options;
  }

  build(): WasmProgram {
    const { graph, stages, preparations, others, constants, scratch, memory } = this.#lowered;
    const kernels = [...preparations, ...others];
    if (kernels.length > MAX_ENTRIES) {
      throw new DeviceError(
        `Cannot compile ${this.#label}: ${kernels.length} kernels are more than ${MAX_ENTRIES}`,
      );
    }
    try {
      this.#allocateNamed();
      this.#allocateTemporary();
      const { module, indices } = assemble(kernels, this.#device);
      const entries = this.#entries(kernels, indices), timed = entries.slice(preparations.length);
      const main = this.#writeTape(timed, others);
      const preparation = preparations.length
        ? this.#writeTape(entries.slice(0, preparations.length), preparations)
        : undefined;
      const scratchAddress = this.#own(scratch * this.#device.threads / 4).address;
      const program = nextProgram++;
      this.#load(program, module);
      const entryOf = new Map(others.map((kernel, i) => [kernel, timed[i]]));
      return new WasmProgram({
        ...{ device: this.#device, buffers: this.#named, owned: this.#owned },
        ...{ program, main, preparation, scratch: scratchAddress, stride: scratch },
        memory: this.#bytes,
        constants: this.#buffersOf(constants),
        written: this.#buffersOf([
          ...Object.values(graph.outputs),
          ...graph.updates.map(([state]) => state),
        ]),
        description: {
          ...{ label: this.#label, memory },
          stages: stages.map(({ stage, kernels }) => describeStage(stage, kernels.map(describe))),
        },
        entries: stages.flatMap(({ kernels }) => kernels.map((kernel) => entryOf.get(kernel))),
      });
    } catch (error) {
      for (const buffer of this.#owned) buffer[Symbol.dispose]();
      throw error;
    }
  }

  #buffersOf(nodes: readonly Tensor[]): WasmBuffer[] {
    return nodes.map((node) => this.#buffers.get(node)!);
  }

  #writeTape(entries: readonly TapeEntry[], kernels: readonly WasmKernel[]): Tape {
    const tape = encodeTape(entries), buffer = this.#own(tape.length, "i32");
    buffer.write(tape);
    return { address: buffer.address, labels: kernels.map((kernel) => kernel.label) };
  }

  #own(length: number, dtype?: DType): WasmBuffer {
    const buffer = new WasmBuffer(this.#device, length, dtype, this.#label);
    this.#owned.push(buffer);
    this.#bytes += 4 * length;
    return buffer;
  }

  /** Hands the module to all threads, through the memory. */
  #load(program: number, module: Uint8Array<ArrayBuffer>): void {
    const address = this.#device.allocate(module.length, this.#label);
    new Uint8Array(this.#device.memory.buffer, address, module.length).set(module);
    try {
      this.#device.player.command("load", { program, address, length: module.length });
    } finally {
      this.#device.release(address);
    }
  }

  /** Inputs, outputs and constants. */
  #allocateNamed(): void {
    for (const [node, name] of this.#lowered.layout.named) {
      const given = name === undefined ? undefined : this.#options.buffers?.[name];
      const buffer = given ?? this.#own(sizeOf(node.shape), node.dtype);
      if (
        !(buffer instanceof WasmBuffer) || buffer.dtype !== node.dtype ||
        buffer.length !== sizeOf(node.shape)
      ) {
        throw new TypeError(
          `Cannot compile ${this.#label}: ${name} wants a buffer of ${sizeOf(node.shape)} ` +
            `${node.dtype} on this device, not of ${buffer.length} ${buffer.dtype}`,
        );
      }
      if (name === undefined) buffer.write(constantData(node)!);
      else this.#named[name] = buffer;
      this.#buffers.set(node, buffer);
      this.#addresses.set(node, buffer.address);
    }
  }

  #addressOf(storage: Storage): number {
    const { root, offset } = this.#lowered.layout.locate(storage);
    return this.#addresses.get(root)! + 4 * offset;
  }

  /** Everything between the kernels, as the memory plan says. */
  #allocateTemporary(): void {
    const { size, offsetOf } = this.#lowered.temporary;
    if (!size) return;
    const start = this.#own(size / 4).address;
    for (const [storage, offset] of offsetOf) this.#addresses.set(storage, start + offset);
  }

  /** The tape, with a barrier before whatever depends on what came since the last one. */
  #entries(kernels: readonly WasmKernel[], indices: readonly number[]): TapeEntry[] {
    const entries: TapeEntry[] = [];
    let open: { start: number; end: number; write: boolean }[] = [];
    kernels.forEach((kernel, i) => {
      const ranges = kernel.pointers.map(({ storage, write }) => {
        const start = this.#addressOf(storage);
        return { start, end: start + storageBytes(storage), write };
      });
      const depends = ranges.some((a) =>
        open.some((b) => (a.write || b.write) && a.start < b.end && b.start < a.end)
      );
      if (depends || open.length > MOST_OPEN) {
        entries[i - 1] = { ...entries[i - 1], hasBarrier: true };
        open = [];
      }
      open.push(...ranges);
      entries.push({
        kernel: indices[i],
        ...{ first: kernel.first ?? 0, tasks: kernel.tasks, hasBarrier: false },
        pointers: kernel.pointers.map(({ storage, offset }) => this.#addressOf(storage) + offset),
      });
    });
    return entries;
  }
}

/** One module with the functions of all kernels, and the function of each. */
function assemble(kernels: readonly WasmKernel[], { isShared }: WasmDevice) {
  const module = new Module(), known = new Map<string, number>();
  const indices = kernels.map((kernel) => {
    let index = known.get(kernel.key);
    if (index === undefined) {
      const body = module.define(`f${known.size}`, parameterTypes(kernel), (f, parameters) => {
        kernel.build(f, parameters[0], parameters.slice(1, -1), parameters.at(-1)!);
      });
      known.set(kernel.key, index = body.index);
    }
    return index;
  });
  return { module: module.encode({ maxPages: 65536, isShared }), indices };
}

const describe = ({ label, pointers, tasks }: WasmKernel): KernelDescription => ({
  ...{ label, groups: tasks },
  bytes: pointers.reduce((sum, { storage }) => sum + storageBytes(storage), 0),
});

/** Where a tape lies, and what its entries do. */
interface Tape {
  readonly address: number;
  readonly labels: readonly string[];
}

/** What a program is made of. */
interface ProgramParts {
  readonly device: WasmDevice;
  readonly description: ProgramDescription;
  /** Of the kernels as they are described; `undefined` for preparations. */
  readonly entries: readonly (TapeEntry | undefined)[];
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  readonly owned: readonly WasmBuffer[];
  readonly program: number;
  readonly main: Tape;
  /** What prepares constants, if there is anything to. */
  readonly preparation: Tape | undefined;
  readonly constants: readonly WasmBuffer[];
  readonly written: readonly WasmBuffer[];
  readonly scratch: number;
  readonly stride: number;
  readonly memory: number;
}

/** A compiled graph on the CPU. */
class WasmProgram implements Program {
  readonly label: string;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  readonly memory: number;
  readonly dispatches: number;
  readonly flops: number;
  readonly #parts: ProgramParts;
  /** The versions of the constants that were prepared. */
  #prepared = "";
  #isDisposed = false;

  constructor(parts: ProgramParts) {
    this.label = parts.description.label;
    this.buffers = parts.buffers;
    this.memory = parts.memory;
    this.dispatches = parts.main.labels.length;
    this.flops = parts.description.stages.reduce((sum, stage) => sum + stage.flops, 0);
    this.#parts = parts;
  }

  describe(): ProgramDescription {
    return this.#parts.description;
  }

  run(times = 1): void {
    this.#prepare();
    for (let i = 0; i < times; i++) this.#play(this.#parts.main);
    for (const buffer of this.#parts.written) buffer.version++;
  }

  profile(): Promise<readonly number[]> {
    return Promise.resolve().then(() => {
      const { device, entries, description, written } = this.#parts;
      this.#prepare();
      const labels = description.stages.flatMap(({ kernels }) => kernels.map((k) => k.label));
      const longest = Math.max(0, ...entries.map((e) => e ? encodeTape([e]).length : 0));
      using tape = new WasmBuffer(device, longest, "i32", "a profile");
      const times = entries.map((entry, i) => {
        if (!entry) return 0;
        tape.write(encodeTape([entry]));
        const start = performance.now();
        this.#play({ address: tape.address, labels: [labels[i]] });
        return performance.now() - start;
      });
      for (const buffer of written) buffer.version++;
      return times;
    });
  }

  /** Prepares constants, if they have changed. */
  #prepare(): void {
    const { device, preparation, constants } = this.#parts;
    device.check();
    const versions = constants.map((buffer) => buffer.version).join();
    if (preparation && versions !== this.#prepared) this.#play(preparation);
    this.#prepared = versions;
  }

  #play({ address, labels }: Tape): void {
    const { device, program, scratch, stride } = this.#parts;
    device.player.command("play", { program, address, scratch, length: stride });
    const failed = device.player.takeFailure();
    if (failed !== undefined) {
      throw new DeviceError(`Failed running ${this.label}: ${labels[failed]} trapped`);
    }
  }

  [Symbol.dispose](): void {
    const { device, owned, program } = this.#parts;
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    try {
      device.player.command("unload", { program });
    } finally {
      for (const buffer of owned) buffer[Symbol.dispose]();
    }
  }
}
