/**
 * Random numbers for tests: repeatable, and told apart by a text.
 *
 * @module
 */

import { philox, toUniform } from "../src/gpu/philox.ts";

/** A sequence of random numbers. */
export class Random {
  readonly #key: readonly [number, number];
  readonly #words = new Uint32Array(4);
  #drawn = 0;

  constructor(seed: string) {
    let hash = 0;
    for (const c of seed) hash = (Math.imul(hash, 31) + c.codePointAt(0)!) | 0;
    this.#key = [hash, 0];
  }

  #word(): number {
    const place = this.#drawn++;
    if (place % 4 === 0) philox([place / 4, 0, 0, 0], this.#key, this.#words);
    return this.#words[place % 4];
  }

  /** A number between two. */
  between(low: number, high: number): number {
    return low + (high - low) * toUniform(this.#word());
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    return Math.floor(this.between(0, below));
  }
}
