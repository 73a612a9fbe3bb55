/**
 * Enlarging pictures of any size: an {@linkcode Upscaler} is a model of super-resolution compiled for
 * tiles of the size that it was trained on. It holds rows of tiles, never a whole picture.
 *
 * @module
 */

import type { DenoiserWrapper } from "../diffusion/denoiser.ts";
import { InputError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { randomNormal } from "../gpu/ops/random.ts";
import { permute, reshape } from "../gpu/ops/view.ts";
import { philox, seedWords, toNormals } from "../gpu/philox.ts";
import type { Model } from "../model/model.ts";
import { MAX_NOISE_LEVEL } from "../model/super_resolution.ts";
import { sizeOf } from "../shape.ts";
import { pictureSize, type SampleOptions, type SamplerOptions, type Samples } from "./options.ts";
import { Sampler } from "./sampler.ts";
import { agree, type Axis, cutTile, layTiles } from "./tiles.ts";

/** Streams of random numbers: what pictures start from, and the noise that is added to them. */
const CELL_STREAM = 52, NOISE_STREAM = 53;

/** Settings of one call. */
export interface UpscaleOptions
  extends Pick<SampleOptions, "seed" | "first" | "labels" | "signal" | "onProgress"> {
  /** Pictures of one size, in [-1, 1]; what is beyond is limited to it. */
  readonly pictures: Samples;
  /**
   * Standard deviation s of the noise that they get, √(1 - s²) y + s ε, which the network is told:
   * the more, the less it believes of their details. Without noise, squares of pixels of the result
   * have the pixels of the pictures as their means. @default {0}
   */
  readonly noiseLevel?: number;
}

/** Rows of an enlarged picture, from its left edge to its right. */
export interface UpscaledRows {
  /** Which of the pictures, from 0. */
  readonly picture: number;
  /** The first row. */
  readonly top: number;
  /** `[rows, width, channels]`, in [-1, 1]; good until the next rows are asked for. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** Where pixels are, as a condition of samplers that draw noise by it. */
const withCells = (factor: number): DenoiserWrapper => (denoiser) => {
  const [height, width] = denoiser.itemShape, shape = [height / factor, width / factor];
  return { ...denoiser, conditions: { ...denoiser.conditions, cells: { shape, dtype: "i32" } } };
};

/** Noise that is a function of the cells that pixels lie in, so that tiles agree on it. */
const noiseOfCells = (factor: number): NonNullable<SamplerOptions["noise"]> =>
(
  [count, height, width, channels],
  random,
  stream,
  { cells },
) => {
  const rows = height / factor, columns = width / factor, all = count * rows * columns;
  const numbered = { ...random, first: reshape(cells, [all]) };
  const drawn = randomNormal([all, factor, factor, channels], numbered, stream);
  const grid = reshape(drawn, [count, rows, columns, factor, factor, channels]);
  return reshape(permute(grid, [0, 1, 3, 2, 4, 5]), [count, height, width, channels]);
};

/** A tile of a picture. */
interface Tile {
  readonly picture: number;
  readonly row: number;
  readonly column: number;
}

/**
 * A model of super-resolution and a method, compiled. Dispose of it to free its memory.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseNetwork, Upscaler } from "@x/ddpm";
 *
 * const network = parseNetwork({ _class_name: "SuperResolutionUNet2DModel", factor: 2,
 *   sample_size: 8, block_out_channels: [8], norm_num_groups: 4, down_block_types: ["DownBlock2D"],
 *   up_block_types: ["UpBlock2D"] });
 * using device = await openDevice("cpu");
 * const options = { method: "ddim", steps: 2, batchSize: 4 } as const;
 * using upscaler = await Upscaler.create(device, initializeModel(network, {}, 0), options);
 * const pictures = { count: 1, shape: [9, 5, 3], data: new Float32Array(9 * 5 * 3) };
 * const { shape } = await upscaler.upscale({ pictures, seed: 1 });
 * console.log(shape); // [18, 10, 3]
 * ```
 */
export class Upscaler implements Disposable {
  /** How many times as wide and high results are. */
  readonly factor: number;
  readonly #sampler: Sampler;
  readonly #batchSize: number;
  /** Of a tile of the result. */
  readonly #tile: readonly [height: number, width: number, channels: number];
  readonly #knowsNoise: boolean;

  private constructor(
    sampler: Sampler,
    model: Model,
    batchSize: number,
    tile: readonly [height: number, width: number, channels: number],
  ) {
    this.#sampler = sampler;
    this.factor = factorOf(model);
    this.#batchSize = batchSize;
    this.#tile = tile;
    this.#knowsNoise = knowsNoise(model);
  }

  /**
   * Compiles an upscaler.
   *
   * @throws {InputError} If the model does not enlarge pictures, or the settings do not fit it.
   * @throws {DeviceError} If it does not fit the device.
   */
  static async create(
    device: Device,
    model: Model,
    options: Omit<SamplerOptions, "noise"> = {},
  ): Promise<Upscaler> {
    const factor = factorOf(model), { batchSize = 16, wrap = [] } = options;
    const sampler = await Sampler.create(device, model, {
      ...{ ...options, batchSize, noise: noiseOfCells(factor) },
      wrap: [...wrap, withCells(factor)],
    });
    const { height, width, channels } = pictureSize({ shape: sampler.itemShape });
    return new Upscaler(sampler, model, batchSize, [height, width, channels]);
  }

  /** The compiled step. */
  get sampler(): Sampler {
    return this.#sampler;
  }

  /**
   * Enlarges pictures.
   *
   * @throws {InputError} If pictures or settings do not fit the model.
   * @throws {DeviceError} If the device fails.
   * @returns The pictures; those that are done, if the signal stops it, which may be none.
   */
  async upscale(options: UpscaleOptions): Promise<Samples> {
    const { count, shape: [height, width, channels] } = options.pictures, { factor } = this;
    const shape = [height * factor, width * factor, channels], each = sizeOf(shape);
    const data = new Float32Array(count * each);
    let done = 0;
    for await (const { picture, top, data: rows } of this.rows(options)) {
      data.set(rows, picture * each + top * width * factor * channels);
      if (top * width * factor * channels + rows.length === each) done = picture + 1;
    }
    return { count: done, shape, data: data.subarray(0, done * each) };
  }

  /**
   * Enlarges pictures one after the other, from top to bottom, as a stream of rows; what it holds
   * grows with the width of a picture alone.
   *
   * @throws As {@linkcode Upscaler.upscale}.
   */
  async *rows(options: UpscaleOptions): AsyncGenerator<UpscaledRows> {
    const { pictures, signal, onProgress } = options, { factor } = this;
    this.#check(options);
    const { height, width, channels } = pictureSize(pictures), size = sizeOf(pictures.shape);
    const [tileHeight, tileWidth] = this.#tile;
    const down = layTiles(height, tileHeight / factor, factor);
    const across = layTiles(width, tileWidth / factor, factor);
    const tiles: Tile[] = [];
    for (let picture = 0; picture < pictures.count; picture++) {
      down.starts.forEach((_, row) =>
        across.starts.forEach((_, column) => tiles.push({ picture, row, column }))
      );
    }
    const batches = Math.ceil(tiles.length / this.#batchSize);
    const stride = width * factor * channels, sums = new RowSums(stride);
    for (let b = 0; b < batches; b++) {
      const here = tiles.slice(b * this.#batchSize, (b + 1) * this.#batchSize);
      const made = await this.#sample(here, options, down, across, (done, total) => {
        onProgress?.(b * total + done, batches * total);
      });
      if (signal?.aborted) return;
      for (const [i, tile] of here.entries()) {
        const last = down.starts.length - 1, isLast = tile.column === across.starts.length - 1;
        this.#add(sums, made, i, tile, down, across);
        if (!isLast) continue;
        // Rows that no later tile has a part in.
        const end = tile.row === last ? height : down.starts[tile.row + 1];
        const data = sums.take(end * factor);
        const top = end * factor - data.length / stride, cells = top / factor * width * channels;
        if (!options.noiseLevel) {
          const low = pictures.data.subarray(tile.picture * size + cells).subarray(
            0,
            (end - top / factor) * width * channels,
          );
          agree(data, low.map(limit), width * factor, channels, factor);
        }
        yield { picture: tile.picture, top, data: data.map(limit) };
        if (tile.row === last) sums.restart();
      }
    }
  }

  /** Makes some tiles. */
  async #sample(
    tiles: readonly Tile[],
    { pictures, seed = 0, first = 0, labels, noiseLevel = 0, signal }: UpscaleOptions,
    down: Axis,
    across: Axis,
    onProgress: (done: number, total: number) => void,
  ): Promise<Samples> {
    const { height, width, channels } = pictureSize(pictures), size = sizeOf(pictures.shape);
    const each = down.length * across.length, key = seedWords(seed), words = new Uint32Array(4);
    const low = new Float32Array(tiles.length * each * channels);
    const cells = new Int32Array(tiles.length * each);
    tiles.forEach(({ picture, row, column }, i) => {
      const top = down.starts[row], left = across.starts[column];
      const data = pictures.data.subarray(picture * size, (picture + 1) * size);
      const [from, at] = [i * each, i * each * channels];
      cutTile({ data, height, width, channels }, top, left, down.length, across.length, low, at);
      philox([first + picture, height, width, CELL_STREAM], [key[0], key[1]], words);
      // Cells are numbered by their place; every picture starts elsewhere.
      for (let y = 0; y < down.length; y++) {
        for (let x = 0; x < across.length; x++) {
          cells[from + y * across.length + x] = words[0] + ((top + y) << 16) + left + x;
        }
      }
    });
    for (let i = 0; i < low.length; i++) low[i] = limit(low[i]);
    if (noiseLevel) addNoise(low, cells, channels, noiseLevel, [key[0], key[1]]);
    return await this.#sampler.sample({
      ...{ count: tiles.length, seed, onProgress },
      ...(signal ? { signal } : {}),
      ...(labels ? { labels: tiles.map(({ picture }) => labels[picture]) } : {}),
      conditions: {
        ...{ low_resolution: low, cells },
        ...(this.#knowsNoise ? { noise_level: [noiseLevel] } : {}),
      },
    });
  }

  /** Adds a tile to the rows that it is a part of. */
  #add(
    sums: RowSums,
    { data }: Samples,
    index: number,
    { row, column }: Tile,
    down: Axis,
    across: Axis,
  ): void {
    const { factor } = this, [height, width, channels] = this.#tile;
    const top = down.starts[row] * factor, left = across.starts[column] * factor;
    const rows = Math.min(height, down.size * factor - top);
    const columns = Math.min(width, across.size * factor - left);
    for (let y = 0; y < rows; y++) {
      const sum = sums.at(top + y), share = down.weights[row][y];
      let from = (index * height + y) * width * channels, to = left * channels;
      for (let x = 0; x < columns; x++) {
        const weight = share * across.weights[column][x];
        for (let c = 0; c < channels; c++) sum[to++] += weight * data[from++];
      }
    }
  }

  /** @throws {InputError} If the pictures or the noise level do not fit. */
  #check({ pictures, labels, noiseLevel = 0 }: UpscaleOptions): void {
    const { channels } = pictureSize(pictures), wanted = this.#tile[2], { count } = pictures;
    if (channels !== wanted) {
      throw new InputError(
        `Cannot enlarge pictures of ${channels} channels: the model is for ${wanted}`,
      );
    }
    if (pictures.data.length !== count * sizeOf(pictures.shape) || !pictures.data.length) {
      throw new InputError(
        `Cannot enlarge ${count} pictures of ${pictures.shape.join("x")}: they are ` +
          `${count * sizeOf(pictures.shape)} numbers, not ${pictures.data.length}`,
      );
    }
    if (labels && labels.length !== count) {
      throw new InputError(`Cannot enlarge ${count} pictures by ${labels.length} labels`);
    }
    checkNoiseLevel(noiseLevel, this.#knowsNoise);
  }

  /** Frees its memory; the device lives on. */
  [Symbol.dispose](): void {
    this.#sampler[Symbol.dispose]();
  }
}

/**
 * How many times as wide and high a model makes pictures.
 *
 * @throws {InputError} If it does something else.
 */
export function factorOf({ network }: Pick<Model, "network">): number {
  if (network.kind === "denoiser" && network.factor) return network.factor;
  throw new InputError(
    `The model does not enlarge pictures: it is a ${network.className}; train --objective ` +
      "super-resolution makes one that does",
  );
}

/** @throws {InputError} If pictures cannot be enlarged with so much noise. */
export function checkNoiseLevel(noiseLevel: number, knowsNoise: boolean): void {
  const bad = (why: string) =>
    new InputError(`Cannot enlarge with noise of level ${noiseLevel}: ${why}`);
  if (noiseLevel && !knowsNoise) throw bad("the model was not trained on noise");
  if (!(noiseLevel >= 0 && noiseLevel <= MAX_NOISE_LEVEL)) {
    throw bad(`networks know 0 to ${MAX_NOISE_LEVEL}`);
  }
}

/** Whether a model that enlarges pictures can be told how much noise they have. */
export const knowsNoise = (model: Pick<Model, "network">): boolean =>
  "noise_level" in
    model.network.conditions(model.network.itemShape.map((n) => n ?? factorOf(model)));

const limit = (x: number) => Math.max(-1, Math.min(1, x));

/** √(1 - s²) y + s ε, with noise by the numbers of cells. */
function addNoise(
  low: Float32Array,
  cells: Int32Array,
  channels: number,
  level: number,
  key: readonly [number, number],
): void {
  const keep = Math.sqrt(1 - level ** 2), words = new Uint32Array(4);
  cells.forEach((cell, i) => {
    for (let c = 0; c < channels; c++) {
      if (c % 4 === 0) philox([c / 4, cell, 0, NOISE_STREAM], key, words);
      const [a, b] = c % 4 < 2 ? [words[0], words[1]] : [words[2], words[3]];
      const at = i * channels + c;
      low[at] = keep * low[at] + level * toNormals(a, b)[c % 2];
    }
  });
}

/** Rows of pixels that are being added up. */
class RowSums {
  readonly #stride: number;
  #rows: Float32Array<ArrayBuffer>[] = [];
  /** The number of the first of them. */
  #first = 0;

  constructor(stride: number) {
    this.#stride = stride;
  }

  /** A row, to be added to. */
  at(row: number): Float32Array<ArrayBuffer> {
    while (this.#rows.length <= row - this.#first) {
      this.#rows.push(new Float32Array(this.#stride));
    }
    return this.#rows[row - this.#first];
  }

  /** Takes out all rows up to one. */
  take(end: number): Float32Array<ArrayBuffer> {
    const taken = this.#rows.splice(0, end - this.#first);
    const data = new Float32Array(taken.length * this.#stride);
    taken.forEach((row, i) => data.set(row, i * this.#stride));
    this.#first = end;
    return data;
  }

  /** Begins with another picture. */
  restart(): void {
    this.#rows = [];
    this.#first = 0;
  }
}
