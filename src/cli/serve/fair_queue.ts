/**
 * A queue in which owners take turns, however much each of them asks for.
 *
 * @module
 */

/** Things that wait, by their owners, the one whose turn is next first. */
export class FairQueue<T> {
  readonly #lists = new Map<string, T[]>();

  /** How many wait. */
  get size(): number {
    return this.#lists.values().reduce((n, { length }) => n + length, 0);
  }

  /** How many of an owner wait. */
  countOf(owner: string): number {
    return this.#lists.get(owner)?.length ?? 0;
  }

  push(owner: string, thing: T): void {
    const list = this.#lists.get(owner);
    if (list) list.push(thing);
    else this.#lists.set(owner, [thing]);
  }

  /** Takes the next one; its owner's turn is after all others' then. */
  shift(): T | undefined {
    const [next] = this.#lists;
    if (!next) return undefined;
    const [owner, [first, ...rest]] = next;
    this.#lists.delete(owner);
    if (rest.length) this.#lists.set(owner, rest);
    return first;
  }

  /** Takes one out. */
  remove(thing: T): void {
    for (const [owner, list] of this.#lists) {
      const rest = list.filter((other) => other !== thing);
      if (rest.length) this.#lists.set(owner, rest);
      else this.#lists.delete(owner);
    }
  }

  /** All, in the order in which they will be taken. */
  *[Symbol.iterator](): Generator<T> {
    const lists = [...this.#lists.values()];
    for (let round = 0, isOver = false; !isOver; round++) {
      isOver = true;
      for (const list of lists) {
        if (round >= list.length) continue;
        isOver = false;
        yield list[round];
      }
    }
  }
}
