/**
 * Which storages a program needs and for how long: the part of a memory plan that is the same on all
 * targets.
 *
 * @module
 */

import { type Graph, nodesOf } from "../graph.ts";
import { hasGaps } from "../ops/concat.ts";
import type { Lifetime } from "./memory_plan.ts";
import { Scratch, type Storage } from "../storage.ts";
import { constantData, inputName, type Tensor } from "../tensor.ts";

/** Tensors that lie inside something else, and the element of it that they start at. */
export type Places = ReadonlyMap<Tensor, { readonly within: Storage; readonly offset: number }>;

/** How long the memory of a program is needed. */
export class Layout {
  /** Inputs and outputs with their names, and constants without: they have buffers of their own. */
  readonly named: ReadonlyMap<Tensor, string | undefined>;
  /** Everything between the kernels. */
  readonly lifetimes: readonly Lifetime<Storage>[];
  readonly #placements: Places;

  /**
   * @param kernels What each of them touches, in order.
   * @param size Bytes of a storage.
   * @param preparations Number of kernels, the first ones, whose results stay.
   */
  constructor(
    graph: Graph,
    placements: Places,
    kernels: readonly (readonly Storage[])[],
    size: (storage: Storage) => number,
    preparations = 0,
  ) {
    this.#placements = placements;
    const outputs = new Map(Object.entries(graph.outputs).map(([name, x]) => [x, name]));
    const named = new Map<Tensor, string | undefined>();
    for (const node of nodesOf(graph)) {
      const name = inputName(node) ?? outputs.get(node);
      if (name !== undefined || constantData(node)) named.set(node, name);
    }
    this.named = named;
    const lifetimes = new Map<Storage, Lifetime<Storage>>();
    // What nothing writes must stay zero.
    const whole = new Set<Storage>(nodesOf(graph).filter(hasGaps));
    kernels.forEach((storages, i) => {
      for (const storage of storages) {
        const key = this.locate(storage).root;
        if (!(key instanceof Scratch) && named.has(key)) continue;
        const isWhole = whole.has(key);
        const first = isWhole ? 0 : lifetimes.get(key)?.first ?? i;
        const last = isWhole || first < preparations ? kernels.length : i;
        lifetimes.set(key, { key, size: size(key), first, last });
      }
    });
    this.lifetimes = [...lifetimes.values()];
  }

  /** Where a storage lies: what it is a part of, and the element it starts at. */
  locate(storage: Storage): { root: Storage; offset: number } {
    const place = storage instanceof Scratch ? undefined : this.#placements.get(storage);
    if (!place) return { root: storage, offset: 0 };
    const { root, offset } = this.locate(place.within);
    return { root, offset: offset + place.offset };
  }

  /** What everything between the kernels would take if nothing shared its memory. */
  get unshared(): number {
    return this.lifetimes.reduce((sum, { size }) => sum + size, 0);
  }
}
