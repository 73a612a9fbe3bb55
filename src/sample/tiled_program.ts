/**
 * Programs that take items larger than what they were compiled for, as tiles that overlap.
 *
 * @module
 */

import type { Program } from "../gpu/device.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { pictureSize, type Samples } from "./options.ts";
import { type Axis, cutTile } from "./tiles.ts";

/** How tiles lie in items. */
export interface Tiling {
  /** Tiles that the program takes together. */
  readonly batchSize: number;
  /** Of a tile, `[height, width, channels]`. */
  readonly shape: Shape;
  /** Pixels of a cell, along each side, of what the program is given. */
  readonly factor: number;
  /** The tiles from top to bottom; weights are those of results. */
  readonly down: Axis;
  /** The tiles from left to right. */
  readonly across: Axis;
}

/** A program with an input `x` of tiles, and results that are pictures in their places. */
export class TiledProgram {
  readonly #program: Program;
  readonly #tiling: Tiling;

  constructor(program: Program, tiling: Tiling) {
    this.#program = program;
    this.#tiling = tiling;
  }

  /** Bytes that it took for itself. */
  get memory(): number {
    return this.#program.memory;
  }

  /**
   * Runs it over all tiles of all items.
   *
   * @throws The signal's reason, if it is aborted.
   * @returns The results by name, those of tiles blended.
   */
  async run(
    samples: Samples,
    { signal, onProgress }: {
      readonly signal?: AbortSignal;
      readonly onProgress?: (done: number, total: number) => void;
    },
  ): Promise<Record<string, Float32Array<ArrayBuffer>>> {
    const { batchSize, shape, factor, down, across } = this.#tiling;
    const { height, width, channels } = pictureSize(samples), item = height * width * channels;
    const each = sizeOf(shape), values = new Float32Array(batchSize * each);
    const perItem = down.starts.length * across.starts.length, total = samples.count * perItem;
    const { x, ...rest } = this.#program.buffers;
    const results = Object.entries(rest).filter(([name]) => !name.startsWith("parameters"));
    const cells = down.length * across.length;
    const merged = Object.fromEntries(results.map(([name, { length }]) => {
      const size = length / batchSize / cells * down.size * across.size;
      return [name, new Float32Array(samples.count * size)];
    }));
    for (let at = 0; at < total; at += batchSize) {
      signal?.throwIfAborted();
      const tiles = Array.from({ length: Math.min(batchSize, total - at) }, (_, i) => {
        const picture = Math.floor((at + i) / perItem), tile = (at + i) % perItem;
        const row = Math.floor(tile / across.starts.length);
        return { picture, row, column: tile % across.starts.length };
      });
      tiles.forEach(({ picture, row, column }, i) => {
        const data = samples.data.subarray(picture * item, (picture + 1) * item);
        const [top, left] = [factor * down.starts[row], factor * across.starts[column]];
        cutTile({ data, height, width, channels }, top, left, shape[0], shape[1], values, i * each);
      });
      x.write(values);
      this.#program.run();
      for (const [name, buffer] of results) {
        const size = buffer.length / batchSize, made = await buffer.read(0, tiles.length * size);
        const out = merged[name], whole = out.length / samples.count;
        tiles.forEach(({ picture, row, column }, i) => {
          const tile = made.subarray(i * size, (i + 1) * size);
          const target = out.subarray(picture * whole, (picture + 1) * whole);
          addTile(target, tile, down, across, row, column);
        });
      }
      onProgress?.(at + tiles.length, total);
    }
    return merged;
  }
}

/** Adds a tile to the item that it is a part of. */
function addTile(
  target: Float32Array,
  tile: ArrayLike<number>,
  down: Axis,
  across: Axis,
  row: number,
  column: number,
): void {
  const y = down.weights[row], x = across.weights[column];
  const scale = y.length / down.length, channels = tile.length / (y.length * x.length);
  const stride = across.size * scale * channels;
  for (let i = 0, from = 0; i < y.length; i++) {
    let to = (down.starts[row] * scale + i) * stride + across.starts[column] * scale * channels;
    for (let j = 0; j < x.length; j++) {
      const weight = y[i] * x[j];
      for (let c = 0; c < channels; c++) target[to++] += weight * tile[from++];
    }
  }
}
