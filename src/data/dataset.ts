/**
 * What a trainer learns from.
 *
 * @module
 */

import { philox, seedWords, toInteger } from "../gpu/philox.ts";
import type { Shape } from "../shape.ts";
import type { Batches, BatchPlan } from "./batches.ts";

/** What a set of items says of itself. */
export interface DatasetInfo {
  /** What it is called, in logs. */
  readonly name: string;
  /** Number of items. */
  readonly count: number;
  /** The class of each item, if there are classes, from 0. */
  readonly labels?: ArrayLike<number>;
  /** What the classes are called. */
  readonly classes?: readonly string[];
  /** Why there are no labels, where there seem to be some. */
  readonly labelProblem?: string;
  /** What each item is called, or shows. */
  readonly names?: readonly string[];
  /** What may be said of each item, of which training takes one at a time. */
  readonly captions?: readonly (readonly string[])[];
}

/**
 * Items of one shape, by number: pictures mostly.
 *
 * @example
 * ```ts
 * import type { Dataset } from "@x/ddpm";
 *
 * const ramps: Dataset = {
 *   ...{ name: "ramps", count: 100, shape: [8, 8, 1] },
 *   read(index, out, offset) {
 *     for (let i = 0; i < 64; i++) out[offset + i] = (i * index) % 64 / 31.5 - 1;
 *   },
 * };
 * console.log(ramps.count);
 * ```
 */
export interface Dataset extends DatasetInfo {
  /** Shape of each: `[height, width, channels]` for pictures, 1 channel for grey, 3 for colour. */
  readonly shape: Shape;
  /**
   * Writes item `index`, pictures in [-1, 1], channels last, to `out` from `offset` on, at
   * once or by the time that what it returns is fulfilled.
   */
  read(index: number, out: Float32Array<ArrayBuffer>, offset: number): void | Promise<void>;
  /** For sets that prepare batches ahead, or vary their images from epoch to epoch. */
  batches?(plan: BatchPlan): Batches;
}

/** Keeps the order of images apart from everything else that is drawn from a seed. */
const ORDER_STREAM = 0x0bd3;

/**
 * An endless sequence of image numbers: every epoch each image once, in an order of its own. A pure
 * function of the seed, so that a training that goes on draws what it would have drawn.
 */
export class ImageOrder {
  readonly #count: number;
  readonly #seed: readonly [number, number];
  #epoch = -1;
  #order = new Uint32Array();

  constructor(count: number, seed: number) {
    this.#count = count;
    const [low, high] = seedWords(seed);
    this.#seed = [low, high];
  }

  /** The image at a place of the sequence. */
  at(place: number): number {
    const epoch = Math.floor(place / this.#count);
    if (epoch !== this.#epoch) this.#shuffle(epoch);
    return this.#order[place % this.#count];
  }

  /** Fisher and Yates. */
  #shuffle(epoch: number): void {
    const order = Uint32Array.from({ length: this.#count }, (_, i) => i);
    const words = new Uint32Array(4);
    for (let i = this.#count - 1; i > 0; i--) {
      if (i % 4 === 3 || i === this.#count - 1) {
        philox([i >> 2, epoch, 0, ORDER_STREAM], this.#seed, words);
      }
      const j = toInteger(words[i & 3], i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    this.#order = order;
    this.#epoch = epoch;
  }
}
