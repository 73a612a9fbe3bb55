/**
 * The first half of compilation for WebGPU: a graph in terms of kernels, and its memory plan. Nothing
 * is allocated here, but by a tuner for as long as it measures.
 *
 * @module
 */

import { describeStorage, type Excess, type MemoryPlan } from "../describe.ts";
import type { CompileOptions } from "../device.ts";
import { constantInputs, findPreparations } from "../compile/prepack.ts";
import { fuse } from "../compile/fuse.ts";
import type { Graph } from "../graph.ts";
import { halve } from "../compile/mixed_precision.ts";
import { Layout } from "../compile/buffer_layout.ts";
import { type Plan, planMemory } from "../compile/memory_plan.ts";
import { sizeOf } from "../../shape.ts";
import { simplify } from "../compile/simplify.ts";
import type { Placements, Stage } from "../compile/stage.ts";
import { Scratch, type Storage, storageBytes } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { bufferSize, type GpuDevice } from "./device.ts";
import { uniformBytes } from "./dispatch.ts";
import { bindingBytes, isBindable, type Kernel, type WgslTarget } from "./kernel.ts";
import { lowerLoop } from "./loop.ts";
import { computes, fusingOf, lowerByRule, type Tuner } from "./tuner.ts";

/** A stage and its dispatches. */
interface LoweredStage {
  readonly stage: Stage;
  readonly kernels: readonly Kernel[];
}

/** A graph in terms of kernels, before anything is allocated. */
export interface Lowered {
  readonly graph: Graph;
  readonly placements: Placements;
  readonly layout: Layout;
  readonly stages: readonly LoweredStage[];
  /** Kernels that make of constant inputs what only other kernels read. */
  readonly preparations: readonly Kernel[];
  readonly others: readonly Kernel[];
  readonly constants: readonly Tensor[];
  readonly temporary: Plan<Storage>;
  readonly memory: MemoryPlan;
}

/** Plans a program, with kernels chosen by rule; see {@linkcode GpuDevice.plan}. */
export function lowerProgram(device: GpuDevice, graph: Graph, options: CompileOptions): Lowered {
  const { target } = device, { precision = "f32" } = options;
  device.checkPrecision(precision);
  const whole = simplify(graph, { reads: isBindable, computes: (node) => computes(node, target) });
  // Half as many bytes are to start where bindings may.
  const simple = precision === "f16" ? halve(whole, (x) => isBindable(x, 2)) : whole;
  const { stages, placements } = fuse(simple, {
    ...{ maxStorages: target.maxStorageBuffers, maxWhole: target.maxBindingElements },
    findsAnything: true,
    fuses: (node) => fusingOf(node, target),
  });
  const lowered = stages.map((stage) => ({ stage, kernels: lowerStage(stage, target) }));
  return layOut(device, simple, placements, lowered, options);
}

/** A program with kernels that a tuner chooses, which may have to measure. */
export async function tuneProgram(
  device: GpuDevice,
  tuner: Tuner,
  { graph, stages, placements }: Lowered,
  options: CompileOptions,
): Promise<Lowered> {
  const tuned: LoweredStage[] = [];
  for (const { stage, kernels } of stages) {
    const isChosen = "node" in stage && stage.node.op.variants !== undefined;
    tuned.push({
      stage,
      kernels: isChosen ? await tuner.lower(stage.node, stage.fused) : kernels,
    });
  }
  return layOut(device, graph, placements, tuned, options);
}

function lowerStage(stage: Stage, target: WgslTarget): readonly Kernel[] {
  if ("loop" in stage) return lowerLoop(stage.loop, target);
  const { node, fused } = stage, { variants, loops } = node.op;
  if (variants || !loops) return lowerByRule(target, node, fused);
  return loops(node).flatMap((loop) => lowerLoop(loop, target));
}

/** Plans the memory. */
function layOut(
  device: GpuDevice,
  graph: Graph,
  placements: Placements,
  stages: readonly LoweredStage[],
  options: CompileOptions,
): Lowered {
  const inOrder = stages.flatMap((stage) => stage.kernels);
  const constants = constantInputs(graph, options);
  const preparations = findPreparations(inOrder, constants, ({ bindings }) => bindings);
  const isPreparation = new Set(preparations);
  const others = inOrder.filter((kernel) => !isPreparation.has(kernel));
  const kernels = [...preparations, ...others];
  const touched = kernels.map(({ bindings }) => bindings.map(({ storage }) => storage));
  const layout = new Layout(graph, placements, touched, storageBytes, preparations.length);
  const temporary = planMemory(layout.lifetimes);
  const memory = planBytes(device, layout, kernels, temporary, options);
  return { graph, placements, layout, stages, preparations, others, constants, temporary, memory };
}

/** What a program takes, and what of that is most beyond a limit, if anything is. */
function planBytes(
  { target, device: { limits } }: GpuDevice,
  layout: Layout,
  kernels: readonly Kernel[],
  { slots }: Plan<Storage>,
  { buffers = {} }: CompileOptions,
): MemoryPlan {
  const own = [...layout.named].filter(([_, name]) => name === undefined || !buffers[name]);
  const sizes = own.map(([node]) => bufferSize(4 * sizeOf(node.shape)));
  const temporary = slots.reduce((sum, size) => sum + bufferSize(size), 0);
  const describe = (storage: Storage) =>
    describeStorage(storage, storage instanceof Scratch ? undefined : layout.named.get(storage));
  const candidates: Excess[] = [
    ...own.map(([node], i): [Storage, number] => [node, sizes[i]]),
    ...layout.lifetimes.map(({ key, size }): [Storage, number] => [key, size]),
  ].map(([storage, wanted]) => ({
    ...{ what: describe(storage), wanted, limit: limits.maxBufferSize },
    ...{ unit: "bytes", scope: "in a buffer" },
  }));
  for (const { label, bindings, workgroups } of kernels) {
    for (const binding of bindings) {
      const what = describe(binding.storage), wanted = bindingBytes(binding);
      const limit = 4 * target.maxBindingElements;
      candidates.push({ what, wanted, limit, unit: "bytes", scope: "in a binding" });
    }
    const limit = limits.maxComputeWorkgroupsPerDimension;
    const wanted = Math.max(...workgroups);
    candidates.push({ what: label, wanted, limit, unit: "workgroups", scope: "in a dispatch" });
  }
  const excess = candidates.filter(({ wanted, limit }) => wanted > limit)
    .sort((a, b) => b.wanted / b.limit - a.wanted / a.limit)[0];
  return {
    bytes: sizes.reduce((sum, size) => sum + size, 0) + temporary +
      bufferSize(kernels.reduce((n, kernel) => n + uniformBytes(kernel), 0)),
    ...{ temporary, unshared: layout.unshared, ...(excess ? { excess } : {}) },
  };
}
