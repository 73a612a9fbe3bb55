/**
 * The memory plan: which tensors share memory because they are not needed at the same time. Its size
 * is known before anything is allocated.
 *
 * @module
 */

import { push } from "./multimap.ts";

/** Something that needs memory from its first to its last use, both included. */
export interface Lifetime<T> {
  readonly key: T;
  readonly size: number;
  readonly first: number;
  readonly last: number;
}

/** Slots of memory, and the slot of each key. */
export interface Plan<T> {
  readonly slots: readonly number[];
  readonly slotOf: ReadonlyMap<T, number>;
}

type Slotted<T> = Lifetime<T> & { readonly slot: number };
type Placed<T> = Lifetime<T> & { readonly offset: number };

/** Spans of time, of which those that overlap another one are found without a look at all others. */
class Timeline<L extends { readonly first: number; readonly last: number }> {
  /** By the time at which they begin. */
  readonly #beginning = new Map<number, L[]>();
  /** By parts of the time that they cover: from `at * size` on, for `size` a power of two. */
  readonly #covering = new Map<string, L[]>();
  #end = 1;

  add(span: L): void {
    push(this.#beginning, span.first, span);
    while (this.#end <= span.last) this.#end *= 2;
    // The largest aligned parts that make up a span are twice its logarithm at the most.
    for (let at = span.first; at <= span.last;) {
      let size = 1;
      while (at % (2 * size) === 0 && at + 2 * size - 1 <= span.last) size *= 2;
      push(this.#covering, `${size} ${at}`, span);
      at += size;
    }
  }

  overlapping({ first, last }: { readonly first: number; readonly last: number }): L[] {
    const found: L[] = [];
    for (let size = 1; size <= this.#end; size *= 2) {
      found.push(...this.#covering.get(`${size} ${first - first % size}`) ?? []);
    }
    for (let at = first + 1; at <= last; at++) found.push(...this.#beginning.get(at) ?? []);
    return found;
  }
}

/**
 * Shares slots greedily, the largest tensors first (Pisarchyk and Lee, "Efficient memory management
 * for deep neural net inference", 2020): each goes to the fullest slot that is free throughout its
 * lifetime.
 */
export function planMemory<T>(lifetimes: readonly Lifetime<T>[]): Plan<T> {
  const slots: number[] = [], slotOf = new Map<T, number>(), placed = new Timeline<Slotted<T>>();
  for (const life of lifetimes.toSorted((a, b) => b.size - a.size)) {
    const taken = new Set(placed.overlapping(life).map(({ slot }) => slot));
    // Slots are in order of size, so the last free one wastes least.
    let slot = slots.length - 1;
    while (taken.has(slot)) slot--;
    if (slot < 0) slot = slots.push(life.size) - 1;
    placed.add({ ...life, slot });
    slotOf.set(life.key, slot);
  }
  return { slots, slotOf };
}

/**
 * Places within one block of memory, greedily as well: each tensor, the largest first, at the lowest
 * place that is free throughout its lifetime and wastes least.
 */
export function planOffsets<T>(
  lifetimes: readonly Lifetime<T>[],
): { size: number; offsetOf: ReadonlyMap<T, number> } {
  const placed = new Timeline<Placed<T>>(), offsetOf = new Map<T, number>();
  let size = 0;
  for (const life of lifetimes.toSorted((a, b) => b.size - a.size)) {
    const taken = placed.overlapping(life).sort((a, b) => a.offset - b.offset);
    let end = 0, best = Infinity, offset: number | undefined;
    for (const other of taken) {
      const gap = other.offset - end;
      if (gap >= life.size && gap < best) [best, offset] = [gap, end];
      end = Math.max(end, other.offset + other.size);
    }
    offset ??= end;
    placed.add({ ...life, offset });
    offsetOf.set(life.key, offset);
    size = Math.max(size, offset + life.size);
  }
  return { size, offsetOf };
}
