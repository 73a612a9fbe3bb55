/**
 * A cache of decoded images in memory shared by all workers.
 *
 * @module
 */

import type { Raster } from "../../data/raster.ts";

/** Images start at multiples of this many bytes, so that 32 bits address up to 256 GiB. */
const UNIT = 64;
/** The memory grows by this many bytes. */
const GROWTH = 2 ** 25;
/** Words of the table before those of the pictures: how many units are taken. */
const HEAD = 1;

/** What a worker needs to use a cache. */
export interface SharedCache {
  /** The units taken; then for each picture its first unit + 1, or 0, its width, its height. */
  readonly table: SharedArrayBuffer;
  /** Grows up to a limit; where it ends, no more pictures are kept. */
  readonly pixels: SharedArrayBuffer;
}

/** Makes an empty cache for `count` pictures that takes `limit` bytes at most. */
export function makeCache(count: number, limit: number): SharedCache {
  return {
    table: new SharedArrayBuffer(4 * (HEAD + 3 * count)),
    pixels: new SharedArrayBuffer(0, { maxByteLength: limit - limit % UNIT }),
  };
}

/** The cache, as seen by one thread. */
export class PixelCache {
  readonly #table: Int32Array<SharedArrayBuffer>;
  readonly #pixels: SharedArrayBuffer;
  readonly #channels: number;

  constructor({ table, pixels }: SharedCache, channels: number) {
    this.#table = new Int32Array(table);
    this.#pixels = pixels;
    this.#channels = channels;
  }

  /** The picture, if it is there. */
  get(index: number): Raster | undefined {
    const at = HEAD + 3 * index, first = Atomics.load(this.#table, at);
    if (!first) return undefined;
    const [width, height] = [this.#table[at + 1], this.#table[at + 2]];
    const from = ((first - 1) >>> 0) * UNIT, size = width * height * this.#channels;
    const data = new Uint8Array(new Uint8Array(this.#pixels, from, size));
    return { width, height, channels: this.#channels, data };
  }

  /** Keeps a picture, if there is room. */
  set(index: number, { width, height, data }: Raster): void {
    const at = HEAD + 3 * index, units = Math.ceil(data.length / UNIT);
    if (Atomics.load(this.#table, at)) return;
    const first = Atomics.add(this.#table, 0, units) >>> 0, end = (first + units) * UNIT;
    if (end > this.#pixels.maxByteLength) {
      Atomics.sub(this.#table, 0, units);
      return;
    }
    while (this.#pixels.byteLength < end) {
      const length = Math.min(this.#pixels.maxByteLength, Math.ceil(end / GROWTH) * GROWTH);
      try {
        this.#pixels.grow(length);
      } catch (error) {
        // Another thread may have been faster, and grown it further; or the memory is at its end.
        if (this.#pixels.byteLength < end && !(error instanceof RangeError)) throw error;
        if (this.#pixels.byteLength < end) return;
      }
    }
    new Uint8Array(this.#pixels, first * UNIT, data.length).set(data);
    this.#table[at + 1] = width;
    this.#table[at + 2] = height;
    Atomics.store(this.#table, at, first + 1);
  }
}
