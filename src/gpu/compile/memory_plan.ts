/**
 * The memory plan: which tensors share memory because they are not needed at the same time. Its size
 * is known before anything is allocated.
 *
 * @module
 */

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

/**
 * Shares slots greedily, the largest tensors first (Pisarchyk and Lee, "Efficient memory management
 * for deep neural net inference", 2020): each goes to the fullest slot that is free throughout its
 * lifetime.
 */
export function planMemory<T>(lifetimes: readonly Lifetime<T>[]): Plan<T> {
  const slots: { size: number; taken: Lifetime<T>[] }[] = [];
  const slotOf = new Map<T, number>();
  for (const life of lifetimes.toSorted((a, b) => b.size - a.size)) {
    const overlaps = (other: Lifetime<T>) => other.first <= life.last && life.first <= other.last;
    // Slots are in order of size, so the last free one wastes least.
    let found = slots.findLastIndex((slot) => !slot.taken.some(overlaps));
    if (found < 0) found = slots.push({ size: life.size, taken: [] }) - 1;
    slots[found].taken.push(life);
    slotOf.set(life.key, found);
  }
  return { slots: slots.map((s) => s.size), slotOf };
}

/**
 * Places within one block of memory, greedily as well: each tensor, the largest first, at the lowest
 * place that is free throughout its lifetime and wastes least.
 */
export function planOffsets<T>(
  lifetimes: readonly Lifetime<T>[],
): { size: number; offsetOf: ReadonlyMap<T, number> } {
  const placed: (Lifetime<T> & { offset: number })[] = [], offsetOf = new Map<T, number>();
  let size = 0;
  for (const life of lifetimes.toSorted((a, b) => b.size - a.size)) {
    const taken = placed.filter((o) => o.first <= life.last && life.first <= o.last)
      .sort((a, b) => a.offset - b.offset);
    let end = 0, best = Infinity, offset: number | undefined;
    for (const other of taken) {
      const gap = other.offset - end;
      if (gap >= life.size && gap < best) [best, offset] = [gap, end];
      end = Math.max(end, other.offset + other.size);
    }
    offset ??= end;
    placed.push({ ...life, offset });
    offsetOf.set(life.key, offset);
    size = Math.max(size, offset + life.size);
  }
  return { size, offsetOf };
}
