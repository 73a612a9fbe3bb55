/**
 * Byte pair encoding (Sennrich et al. 2016) of single words: the two neighbours that rank best become
 * one, again and again. The time is that of sorting, so that a word may have a million letters.
 *
 * @module
 */

/** Numbers, of which the least comes out first. */
class Heap {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let at = items.length;
    for (let up; at > 0 && items[up = (at - 1) >> 1] > item; at = up) items[at] = items[up];
    items[at] = item;
  }

  pop(): number | undefined {
    const items = this.#items, [least] = items, item = items.pop();
    if (item === undefined || !items.length) return item;
    let at = 0;
    for (let down; (down = 2 * at + 1) < items.length; at = down) {
      if (items[down + 1] < items[down]) down++;
      if (items[down] >= item) break;
      items[at] = items[down];
    }
    items[at] = item;
    return least;
  }
}

/** Two tokens that become one. */
export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly joined: number;
}

/** Ids are below this, so that two of them fit into a number, and a rank and a place do. */
export const MAX_VOCABULARY = 2 ** 20;

/** The place in a word, as the lower part of what is in the heap. */
const PLACES = 2 ** 32;

/** All merges, the first one ranking best. */
export class BytePairs {
  /** Rank and result, by left and right. */
  readonly #pairs = new Map<number, { readonly rank: number; readonly joined: number }>();

  constructor(merges: Iterable<Merge>) {
    let rank = 0;
    for (const { left, right, joined } of merges) {
      this.#pairs.set(left * MAX_VOCABULARY + right, { rank: rank++, joined });
    }
  }

  /** The tokens that a word of such letters becomes. */
  encode(letters: Int32Array): number[] {
    const tokens = letters.slice(), { length } = tokens, heap = new Heap();
    const next = tokens.map((_, i) => i + 1), previous = tokens.map((_, i) => i - 1);
    const pairAt = (i: number) => this.#pairs.get(tokens[i] * MAX_VOCABULARY + tokens[next[i]]);
    const enter = (i: number) => {
      const pair = i >= 0 && next[i] < length ? pairAt(i) : undefined;
      if (pair) heap.push(pair.rank * PLACES + i);
    };
    for (let i = 0; i < length; i++) enter(i);
    for (let item = heap.pop(); item !== undefined; item = heap.pop()) {
      const i = item % PLACES, gone = next[i];
      // What stood there when it was entered may be part of another token by now.
      const pair = tokens[i] >= 0 && gone < length ? pairAt(i) : undefined;
      if (pair?.rank !== (item - i) / PLACES) continue;
      tokens[i] = pair.joined;
      tokens[gone] = -1;
      next[i] = next[gone];
      if (next[i] < length) previous[next[i]] = i;
      enter(previous[i]);
      enter(i);
    }
    return [...tokens.filter((token) => token >= 0)];
  }
}
