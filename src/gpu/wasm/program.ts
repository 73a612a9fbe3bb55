/**
 * Compilation of graphs for the CPU. A {@linkcode WasmProgram} is one WebAssembly module and one tape
 * of calls; running it is one command to all threads.
 *
 * @module
 */

import { type CompileOptions, DeviceError, type Program, type TensorBuffer } from "../device.ts";
import { fuse } from "../fuse.ts";
import type { Placements, Stage } from "../stage.ts";
import { type Graph, nodesOf } from "../graph.ts";
import { hasGaps } from "../ops/concat.ts";
import { type Lifetime, planOffsets } from "../plan.ts";
import { sizeOf } from "../shape.ts";
import { simplify } from "../simplify.ts";
import { Scratch, type Storage } from "../storage.ts";
import { constantData, type DType, inputName, type Tensor } from "../tensor.ts";
import { Module } from "./assembler.ts";
import { WasmBuffer, type WasmDevice } from "./device.ts";
import { parameterTypes, storageBytes, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { lowerLoop } from "./loop.ts";
import { encodeTape, MAX_ENTRIES, type TapeEntry } from "./threads.ts";

/** Storages that a loop may touch: parameters of a function are cheap. */
const MAX_STORAGES = 32;

/** Compiles a graph; see {@linkcode WasmDevice.compile}. */
export function compileProgram(
  device: WasmDevice,
  graph: Graph,
  options: CompileOptions,
): WasmProgram {
  const simple = simplify(graph);
  const { stages, placements } = fuse(simple, {
    maxStorages: MAX_STORAGES,
    fusesOperations: true,
  });
  const kernels = stages.flatMap((stage) => lowerStage(stage, device.target));
  return new Builder(device, simple, placements, options).build(kernels);
}

function lowerStage(stage: Stage, target: WasmTarget): readonly WasmKernel[] {
  if ("loop" in stage) return lowerLoop(stage.loop, target);
  const { node, fused } = stage;
  if (node.op.loops) return node.op.loops(node).flatMap((loop) => lowerLoop(loop, target));
  if (!node.op.wasm) throw new DeviceError(`No kernel computes ${node.op.name} on the CPU`);
  return node.op.wasm(node, target, fused);
}

/** Numbers that tell programs apart. */
let nextProgram = 0;

/** Gives tensors their memory and kernels their pointers. */
class Builder {
  readonly #device: WasmDevice;
  readonly #label: string;
  readonly #graph: Graph;
  readonly #placements: Placements;
  readonly #options: CompileOptions;
  readonly #owned: WasmBuffer[] = [];
  readonly #addresses = new Map<Storage, number>();
  readonly #named: Record<string, TensorBuffer> = {};
  readonly #buffers = new Map<Tensor, WasmBuffer>();
  #bytes = 0;

  constructor(device: WasmDevice, graph: Graph, placements: Placements, options: CompileOptions) {
    this.#device = device;
    this.#label = options.label ?? "a program";
    this.#graph = graph;
    this.#placements = placements;
    this.#options = options;
  }

  build(inOrder: readonly WasmKernel[]): WasmProgram {
    const preparations = this.#preparations(inOrder), isPreparation = new Set(preparations);
    const others = inOrder.filter((kernel) => !isPreparation.has(kernel));
    const kernels = [...preparations, ...others];
    if (kernels.length > MAX_ENTRIES) {
      throw new DeviceError(
        `Cannot compile ${this.#label}: ${kernels.length} kernels are more than ${MAX_ENTRIES}`,
      );
    }
    try {
      this.#allocateNamed();
      this.#allocateTemporary(kernels, preparations.length);
      const { module, indices } = assemble(kernels, this.#device);
      const entries = this.#entries(kernels, indices);
      const main = this.#writeTape(entries.slice(preparations.length), others);
      const preparation = preparations.length
        ? this.#writeTape(entries.slice(0, preparations.length), preparations)
        : undefined;
      // A cache line apart, so that threads do not disturb each other.
      const stride = Math.ceil(Math.max(0, ...kernels.map((k) => k.scratch)) / 64) * 64 + 64;
      const scratch = this.#own(stride * this.#device.threads / 4).address;
      const program = nextProgram++;
      this.#load(program, module);
      return new WasmProgram({
        ...{ device: this.#device, label: this.#label, buffers: this.#named, owned: this.#owned },
        ...{ program, main, preparation, scratch, stride, memory: this.#bytes },
        constants: this.#buffersOf(this.#constantInputs()),
        written: this.#buffersOf([
          ...Object.values(this.#graph.outputs),
          ...this.#graph.updates.map(([state]) => state),
        ]),
        flops: nodesOf(this.#graph).reduce((n, x) => n + (x.op.flops?.(x) ?? 0), 0),
      });
    } catch (error) {
      for (const buffer of this.#owned) buffer[Symbol.dispose]();
      throw error;
    }
  }

  /** Inputs that were said to be constant, and are by this program. */
  #constantInputs(): Tensor[] {
    const updated = new Set(this.#graph.updates.map(([state]) => state));
    const names = new Set(this.#options.constant);
    return nodesOf(this.#graph).filter((node) =>
      names.has(inputName(node) ?? "") && !updated.has(node)
    );
  }

  #buffersOf(nodes: readonly Tensor[]): WasmBuffer[] {
    return nodes.map((node) => this.#buffers.get(node)!);
  }

  /** Kernels that make of constant inputs what only other kernels read. */
  #preparations(kernels: readonly WasmKernel[]): WasmKernel[] {
    const known = new Set<Storage>(this.#constantInputs());
    return kernels.filter(({ pointers }) => {
      const isPreparation = pointers.every(({ storage, write }) =>
        write ? storage instanceof Scratch : known.has(storage)
      );
      if (isPreparation) { for (const { storage } of pointers) known.add(storage); }
      return isPreparation;
    });
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
    const outputs = new Map(Object.entries(this.#graph.outputs).map(([name, x]) => [x, name]));
    for (const node of nodesOf(this.#graph)) {
      const name = inputName(node) ?? outputs.get(node), data = constantData(node);
      if (name === undefined && !data) continue;
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
      if (data) buffer.write(data);
      else this.#named[name!] = buffer;
      this.#buffers.set(node, buffer);
      this.#addresses.set(node, buffer.address);
    }
  }

  /** Where a storage lies: what it is a part of, and the byte it starts at. */
  #locate(storage: Storage): { root: Storage; offset: number } {
    const place = storage instanceof Scratch ? undefined : this.#placements.get(storage);
    if (!place) return { root: storage, offset: 0 };
    const { root, offset } = this.#locate(place.within);
    return { root, offset: offset + 4 * place.offset };
  }

  #addressOf(storage: Storage): number {
    const { root, offset } = this.#locate(storage);
    return this.#addresses.get(root)! + offset;
  }

  /** Everything between the kernels, as the memory plan says; what preparations make stays. */
  #allocateTemporary(kernels: readonly WasmKernel[], preparations: number): void {
    const lifetimes = new Map<Storage, Lifetime<Storage>>();
    kernels.forEach((kernel, i) => {
      for (const { storage } of kernel.pointers) {
        const key = this.#locate(storage).root;
        if (this.#addresses.has(key)) continue;
        const isWhole = !(key instanceof Scratch) && hasGaps(key);
        const first = isWhole ? 0 : lifetimes.get(key)?.first ?? i;
        const isKept = isWhole || first < preparations;
        const last = isKept ? kernels.length : i;
        // An odd number of lines apart, so that large tensors do not share the sets of a cache.
        const size = Math.ceil(storageBytes(key) / 64) * 64 + 64;
        lifetimes.set(key, { key, size, first, last });
      }
    });
    const { size, offsetOf } = planOffsets([...lifetimes.values()]);
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
      if (depends) {
        entries[i - 1] = { ...entries[i - 1], hasBarrier: true };
        open = [];
      }
      open.push(...ranges);
      entries.push({
        kernel: indices[i],
        tasks: kernel.tasks,
        hasBarrier: false,
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

/** Where a tape lies, and what its entries do. */
interface Tape {
  readonly address: number;
  readonly labels: readonly string[];
}

/** What a program is made of. */
interface ProgramParts {
  readonly device: WasmDevice;
  readonly label: string;
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
  readonly flops: number;
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
    this.label = parts.label;
    this.buffers = parts.buffers;
    this.memory = parts.memory;
    this.dispatches = parts.main.labels.length;
    this.flops = parts.flops;
    this.#parts = parts;
  }

  run(times = 1): void {
    const { device, preparation, main, constants, written } = this.#parts;
    device.check();
    const versions = constants.map((buffer) => buffer.version).join();
    if (preparation && versions !== this.#prepared) this.#play(preparation);
    this.#prepared = versions;
    for (let i = 0; i < times; i++) this.#play(main);
    for (const buffer of written) buffer.version++;
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
