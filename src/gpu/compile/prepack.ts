/**
 * What can be prepared once for many runs: kernels that make of inputs that seldom change what only
 * other kernels read.
 *
 * @module
 */

import type { CompileOptions } from "../device.ts";
import { type Graph, nodesOf } from "../graph.ts";
import { Scratch, type Storage } from "../storage.ts";
import { inputName, type Tensor } from "../tensor.ts";

/** Inputs that were said to be constant, and are by this program. */
export function constantInputs(graph: Graph, { constant }: CompileOptions): Tensor[] {
  const updated = new Set(graph.updates.map(([state]) => state)), names = new Set(constant);
  return nodesOf(graph).filter((node) => names.has(inputName(node) ?? "") && !updated.has(node));
}

/**
 * Kernels that only prepare constants, in order.
 *
 * @param touches What a kernel reads and writes.
 */
export function findPreparations<K>(
  kernels: readonly K[],
  constants: readonly Tensor[],
  touches: (kernel: K) => readonly { readonly storage: Storage; readonly write: boolean }[],
): K[] {
  const known = new Set<Storage>(constants);
  return kernels.filter((kernel) => {
    const touched = touches(kernel);
    const isPreparation = touched.every(({ storage, write }) =>
      write ? storage instanceof Scratch : known.has(storage)
    );
    if (isPreparation) { for (const { storage } of touched) known.add(storage); }
    return isPreparation;
  });
}
