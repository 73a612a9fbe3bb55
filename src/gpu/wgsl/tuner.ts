/**
 * How an operation is computed: the ways that its variants and the device's tiles give, one that
 * suits by rule, and the fastest by measurement.
 *
 * @module
 */

import type { Fusing } from "../compile/fusion_rules.ts";
import { DeviceError } from "../device.ts";
import type { Fused } from "../compile/loop.ts";
import { formatShape } from "../../shape.ts";
import { type Storage, storageBytes } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import type { GpuDevice } from "./device.ts";
import { prepare } from "./dispatch.ts";
import { tileNames } from "./gemm.ts";
import {
  bindBuffer,
  type Binding,
  bindingBytes,
  type Kernel,
  type Variant,
  type WgslTarget,
} from "./kernel.ts";
import { timeDispatches } from "./profile.ts";

/** Choosing kernels by measuring each the first time that it is needed. */
export interface Tuning {
  /**
   * What was chosen before, by adapter, operation, sizes and the text of the kernels:
   * `winograd, 64x64`. What is not among it is measured.
   */
  readonly choices: Readonly<Record<string, string>>;
  /** Is told of a choice, to be kept: other choices round differently. */
  readonly onChoice?: (key: string, choice: string) => void;
}

/** One way to compute an operation. */
export interface Candidate {
  readonly name: string;
  readonly kernels: readonly Kernel[];
}

/** The kernels of an operation by rule: the first variant that pays, with a tile that keeps busy. */
export function lowerByRule(
  target: WgslTarget,
  node: Tensor,
  fused: Fused = {},
): readonly Kernel[] {
  if (target.preferred !== undefined) {
    const found = candidatesOf(node, target, fused).find(({ name }) => name === target.preferred);
    if (found) return found.kernels;
  }
  const possible = variantsOf(node, target), pays = (v: Variant) => v.pays?.(node, target) ?? true;
  if (!possible.length) throw new DeviceError(`No kernel computes ${node.op.name} here`);
  const lowered: (readonly Kernel[])[] = [];
  for (const variant of possible.toSorted((a, b) => Number(pays(b)) - Number(pays(a)))) {
    const kernels = variant.lower(node, target, fused);
    if (isWithinLimits(kernels, target)) return kernels;
    lowered.push(kernels);
  }
  return lowered.sort((a, b) => largestBinding(a) - largestBinding(b))[0];
}

/** Whether an operation that others can stand for is to be computed by a kernel of its own. */
export const computes = (node: Tensor, target: WgslTarget): boolean =>
  target.preferred === undefined || !node.op.flops
    ? variantsOf(node, target).some((v) => v.pays?.(node, target) ?? true)
    : candidatesOf(node, target).some(({ name }) => name === target.preferred);

/** The most bytes that one of the kernels sees at a time, which may be scratch. */
const largestBinding = (kernels: readonly Kernel[]): number =>
  Math.max(...kernels.flatMap(({ bindings }) => bindings.map(bindingBytes)));

/** Whether kernels see no more at a time than the device lets them. */
const isWithinLimits = (kernels: readonly Kernel[], { maxBindingElements }: WgslTarget) =>
  largestBinding(kernels) <= 4 * maxBindingElements;

const variantsOf = (node: Tensor, target: WgslTarget) =>
  node.op.variants?.filter((v) => v.when?.(node, target) ?? true) ?? [];

/** Elementwise work that all ways to compute an operation can do. */
export function fusingOf(node: Tensor, target: WgslTarget): Fusing | undefined {
  const variants = variantsOf(node, target);
  const isProduct = node.op.flops !== undefined;
  if ((isProduct && !target.fusesOperations) || !variants.length) return undefined;
  return {
    input: variants.every(({ fuses }) => fuses?.input),
    output: variants.every(({ fuses }) => fuses?.output),
  };
}

/** Everything that is worth trying, ways with the same kernels once. */
export function candidatesOf(node: Tensor, target: WgslTarget, fused: Fused = {}): Candidate[] {
  const all = variantsOf(node, target).flatMap((variant) =>
    tileNames(target).map((tile): Candidate => ({
      name: `${variant.name}, ${tile}`,
      kernels: variant.lower(node, { ...target, tile }, fused),
    }))
  );
  const texts = all.map(({ kernels }) => kernels.map((k) => k.code).join());
  return all.filter(({ kernels }, i) =>
    texts.indexOf(texts[i]) === i && isWithinLimits(kernels, target)
  );
}

/** Rounds of a measurement, of which the fastest counts. */
const ROUNDS = 3;

/** Chooses by what was measured before, and measures what was not. */
export class Tuner {
  readonly #gpu: GpuDevice;
  readonly #choices: Map<string, string>;
  readonly #onChoice: Tuning["onChoice"];
  readonly #time: typeof timeDispatches;

  /** @param time Measures dispatches one by one, in milliseconds. */
  constructor(gpu: GpuDevice, { choices, onChoice }: Tuning, time = timeDispatches) {
    this.#gpu = gpu;
    this.#time = time;
    this.#choices = new Map(Object.entries(choices));
    this.#onChoice = onChoice;
  }

  /** The kernels of an operation. */
  async lower(node: Tensor, fused: Fused): Promise<readonly Kernel[]> {
    const candidates = candidatesOf(node, this.#gpu.target, fused);
    if (candidates.length < 2) return lowerByRule(this.#gpu.target, node, fused);
    const key = `${this.#gpu.name}: ${keyOf(node, candidates)}`, known = this.#choices.get(key);
    const found = candidates.find(({ name }) => name === known);
    if (found) return found.kernels;
    const times = await this.#measure(node.op.name, candidates);
    const best = candidates[Math.max(0, times.indexOf(Math.min(...times)))];
    this.#choices.set(key, best.name);
    this.#onChoice?.(key, best.name);
    return best.kernels;
  }

  /** How long each takes, in turns, in milliseconds, by the device's own clock if it has one. */
  async #measure(label: string, candidates: readonly Candidate[]): Promise<number[]> {
    const gpu = this.#gpu, owned: GPUBuffer[] = [];
    try {
      const ready = candidates.map(({ kernels }) => this.#prepare(label, kernels, owned));
      const times = candidates.map(() => Infinity);
      // The first round compiles and warms up.
      for (let round = 0; round <= ROUNDS; round++) {
        for (const [i, dispatches] of ready.entries()) {
          const parts = await this.#time(gpu, `tuning ${label}`, dispatches);
          // Clocks that are too coarse show nothing.
          const time = parts.reduce((sum, ms) => sum + ms, 0) || Infinity;
          if (round) times[i] = Math.min(times[i], time);
        }
      }
      return times;
    } finally {
      for (const buffer of owned) buffer.destroy();
    }
  }

  /** Dispatches over buffers of their own, all zeros. */
  #prepare(label: string, kernels: readonly Kernel[], owned: GPUBuffer[]) {
    const buffers = new Map<Storage, GPUBuffer>();
    const bind = (binding: Binding): GPUBufferBinding => {
      const { storage } = binding;
      let buffer = buffers.get(storage);
      if (!buffer) {
        buffer = this.#gpu.allocate(label, storageBytes(storage), GPUBufferUsage.STORAGE);
        buffers.set(storage, buffer);
        owned.push(buffer);
      }
      return bindBuffer(binding, buffer);
    };
    const { dispatches, uniforms } = prepare(this.#gpu, label, kernels, bind);
    owned.push(uniforms);
    return dispatches;
  }
}

/** An operation, its sizes, and a hash (FNV-1a) of the texts that may compute it. */
function keyOf({ op, inputs, shape, attributes }: Tensor, candidates: readonly Candidate[]) {
  let hash = 0x811c9dc5;
  for (const { code } of candidates.flatMap(({ kernels }) => kernels)) {
    for (let i = 0; i < code.length; i++) hash = Math.imul(hash ^ code.charCodeAt(i), 0x01000193);
  }
  const shapes = [...inputs.map((x) => x.shape), shape].map(formatShape).join(" ");
  return `${op.name} ${shapes} ${JSON.stringify(attributes)} ${(hash >>> 0).toString(16)}`;
}
