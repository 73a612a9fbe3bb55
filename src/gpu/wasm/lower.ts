/**
 * The first half of compilation for the CPU: a graph in terms of kernels, and its memory plan. Nothing
 * is allocated here.
 *
 * @module
 */

import { describeStorage, type Excess, type MemoryPlan } from "../describe.ts";
import { type CompileOptions, DeviceError, noHalves } from "../device.ts";
import { constantInputs, findPreparations } from "../compile/prepack.ts";
import { fuse } from "../compile/fuse.ts";
import type { Graph } from "../graph.ts";
import { Layout, type Places } from "../compile/buffer_layout.ts";
import { planOffsets } from "../compile/memory_plan.ts";
import { sizeOf } from "../../shape.ts";
import { formatBytes } from "../../units.ts";
import { simplify } from "../compile/simplify.ts";
import type { Stage } from "../compile/stage.ts";
import { type Storage, storageBytes } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import type { WasmDevice } from "./device.ts";
import type { WasmKernel, WasmTarget } from "./kernel.ts";
import { findInPlace } from "./in_place.ts";
import { lowerLoop } from "./loop.ts";
import { TAPE_HEAD } from "./threads.ts";

/** Storages that a loop may touch: parameters of a function are cheap. */
const MAX_STORAGES = 32;

/** A graph in terms of kernels, before anything is allocated. */
export interface Lowered {
  readonly graph: Graph;
  readonly layout: Layout;
  readonly stages: readonly { readonly stage: Stage; readonly kernels: readonly WasmKernel[] }[];
  /** Kernels that make of constant inputs what only other kernels read. */
  readonly preparations: readonly WasmKernel[];
  readonly others: readonly WasmKernel[];
  readonly constants: readonly Tensor[];
  /** Bytes of everything between the kernels, and where in it each storage lies. */
  readonly temporary: { readonly size: number; readonly offsetOf: ReadonlyMap<Storage, number> };
  /** Bytes of scratch for each thread. */
  readonly scratch: number;
  readonly memory: MemoryPlan;
}

/** Plans a program; see {@linkcode WasmDevice.plan}. */
export function lowerProgram(device: WasmDevice, given: Graph, options: CompileOptions): Lowered {
  if (options.precision === "f16") throw noHalves(device.name);
  const graph = simplify(given, { computes: (node) => node.op.wasmPays?.(node) ?? false });
  const fused = fuse(graph, {
    ...{ maxStorages: MAX_STORAGES, findsAnything: false },
    fuses: ({ op }) => op.fuses,
  });
  const stages = fused.stages.map((stage) => ({
    stage,
    kernels: lowerStage(stage, device.target),
  }));
  const inOrder = stages.flatMap(({ kernels }) => kernels);
  const constants = constantInputs(graph, options);
  const preparations = findPreparations(inOrder, constants, ({ pointers }) => pointers);
  const { placements, parts } = findInPlace(graph, fused.placements, inOrder);
  const program = {
    ...{ graph, constants },
    stages: stages.map(({ stage, kernels }) => ({
      ...{ stage, kernels: kernels.flatMap((kernel) => parts.get(kernel) ?? [kernel]) },
    })),
  };
  const planned = layOut(device, program, placements, preparations, options);
  // What is prepared stays: where there is no room for that, it is made whenever it is needed.
  return planned.memory.excess && preparations.length
    ? layOut(device, program, placements, [], options)
    : planned;
}

/** Gives everything its place in memory. */
function layOut(
  device: WasmDevice,
  parts: Pick<Lowered, "graph" | "stages" | "constants">,
  placements: Places,
  preparations: readonly WasmKernel[],
  options: CompileOptions,
): Lowered {
  const isPreparation = new Set(preparations);
  const others = parts.stages.flatMap(({ kernels }) => kernels)
    .filter((kernel) => !isPreparation.has(kernel));
  const kernels = [...preparations, ...others];
  const touched = kernels.map(({ pointers }) => pointers.map(({ storage }) => storage));
  // An odd number of lines apart, so that large tensors do not share the sets of a cache.
  const size = (storage: Storage) => Math.ceil(storageBytes(storage) / 64) * 64 + 64;
  const layout = new Layout(parts.graph, placements, touched, size, preparations.length);
  const temporary = planOffsets(layout.lifetimes);
  // A cache line apart, so that threads do not disturb each other.
  const scratch = Math.ceil(Math.max(0, ...kernels.map((k) => k.scratch)) / 64) * 64 + 64;
  const own = [...layout.named].filter(([_, name]) =>
    name === undefined || !options.buffers?.[name]
  );
  const bytes = own.reduce((sum, [node]) => sum + 4 * sizeOf(node.shape), temporary.size) +
    4 * (tapeLength(others) + (preparations.length ? tapeLength(preparations) : 0)) +
    scratch * device.threads;
  const excess: Excess | undefined = bytes > device.available
    ? {
      ...{ what: "it", wanted: bytes, limit: device.available },
      ...{ unit: "bytes", scope: "of WebAssembly memory", largest: findLargest(layout) },
    }
    : undefined;
  const memory = {
    ...{ bytes, temporary: temporary.size, unshared: layout.unshared },
    ...(excess ? { excess } : {}),
  };
  return { ...parts, layout, preparations, others, temporary, scratch, memory };
}

/** The largest tensor of a program in words. */
function findLargest({ named, lifetimes }: Layout): string {
  const [largest] = [
    ...[...named].map(([x, name]) => ({ key: x, name, size: 4 * sizeOf(x.shape) })),
    ...lifetimes.map(({ key, size }) => ({ key, name: undefined, size })),
  ].sort((a, b) => b.size - a.size);
  return `${formatBytes(largest.size)} for ${describeStorage(largest.key, largest.name)}`;
}

function lowerStage(stage: Stage, target: WasmTarget): readonly WasmKernel[] {
  if ("loop" in stage) return lowerLoop(stage.loop, target);
  const { node, fused } = stage;
  if (node.op.loops) return node.op.loops(node).flatMap((loop) => lowerLoop(loop, target));
  if (!node.op.wasm) throw new DeviceError(`No kernel computes ${node.op.name} on the CPU`);
  return node.op.wasm(node, target, fused);
}

/** Words of the tape of these kernels. */
const tapeLength = (kernels: readonly WasmKernel[]): number =>
  kernels.reduce((sum, { pointers }) => sum + TAPE_HEAD + pointers.length, 1);
