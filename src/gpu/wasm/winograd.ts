/**
 * Convolutions 3 × 3 with stride 1 by F(4 × 4, 3 × 3) on the CPU. A task takes a block of output
 * tiles: it copies the bands that they need, transforms them, multiplies each of the 36 frequencies
 * with its transformed weights, and transforms back, all in scratch memory that fits the second
 * cache.
 *
 * @module
 */

import type { ConvSizes } from "../ops/conv2d.ts";
import { Scratch, type Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { applyMatrix, F4, type Matrix, transposed } from "../winograd.ts";
import {
  add,
  type Body,
  div,
  f32,
  f32x4,
  i32,
  load,
  loadSplat,
  type Local,
  mul,
  type Operand,
  rem,
  sub,
} from "./assembler.ts";
import { bandRow, type BandShape, emitBand, emitZeros } from "./band.ts";
import { emitRows, emitTile, panelWidth, TILE_ROWS, tileRegisters } from "./gemm.ts";
import {
  pointAt,
  type Pointer,
  pointFrom,
  pointTo,
  type WasmKernel,
  type WasmTarget,
} from "./kernel.ts";

/** Outputs of a tile along an axis, inputs of it, and frequencies. */
const M = 4, N = M + 2, FREQUENCIES = N * N;
/** Tiles of a block; a multiple of the rows of a register tile. */
const BLOCK = 48;
/** Fewer channels than this are not worth the transforms. */
const MIN_CHANNELS = 16;
/** Bytes that parts of a weight gradient may take together, and how many parts there are at most. */
const PARTS_BYTES = 16 << 20, MAX_PARTS = 16;
/** Between the frequencies of a block: a cache line more than a power of two. */
const SKEW = 64;

/** Whether a convolution can be computed by this file. */
export function suitsWinograd(s: ConvSizes, { pair }: WasmTarget): boolean {
  const width = panelWidth(pair);
  return s.stride === 1 && s.kernelHeight === 3 && s.kernelWidth === 3 &&
    s.channels % width === 0 && s.outChannels % width === 0 &&
    s.channels >= MIN_CHANNELS && s.outChannels >= MIN_CHANNELS &&
    s.outHeight * s.outWidth >= 4 * M;
}

/** How tiles fall into blocks: several images a block, or some rows of tiles of one. */
interface Blocks {
  readonly tilesX: number;
  readonly tilesY: number;
  /** Images of a block; 1 if blocks are parts of images. */
  readonly images: number;
  /** Rows of tiles of a block, and of the last one of an image. */
  readonly rows: number;
  readonly lastRows: number;
  readonly perImage: number;
  /** Blocks in all. */
  readonly count: number;
  /** Tiles of a full block. */
  readonly tiles: number;
}

function makeBlocks(batch: number, height: number, width: number): Blocks {
  const tilesX = Math.ceil(width / M), tilesY = Math.ceil(height / M);
  const images = Math.max(1, Math.min(batch, Math.floor(BLOCK / (tilesX * tilesY))));
  const most = Math.max(1, Math.floor(BLOCK / tilesX));
  const rows = images > 1 ? tilesY : Math.ceil(tilesY / Math.ceil(tilesY / most));
  const perImage = Math.ceil(tilesY / rows);
  return {
    ...{ tilesX, tilesY, images, rows, perImage },
    lastRows: tilesY - (perImage - 1) * rows,
    count: Math.ceil(batch / images) * perImage,
    tiles: images * rows * tilesX,
  };
}

/** y = matrix · x for vectors, each result in a variable of its own. */
function emitMatrix(f: Body, matrix: Matrix, x: readonly Local[]): Local[] {
  return applyMatrix<Operand>(matrix, x, {
    add: (a, b) => f.vector(f32x4.add(a, b)),
    sub: (a, b) => f.vector(f32x4.sub(a, b)),
    madd(sum, c, v) {
      if (sum === undefined) {
        return c === 1 ? v : c === -1 ? f32x4.neg(v) : f32x4.mul(v, f.constant(c));
      }
      if (c === 1) return f32x4.add(sum, v);
      if (c === -1) return f32x4.sub(sum, v);
      return c < 0 ? f32x4.nmadd(v, f.constant(-c), sum) : f32x4.madd(v, f.constant(c), sum);
    },
    zero: () => f.constant(0),
  }).map((value) => f.vector(value));
}

/** matrix · X · matrixᵀ for a square of vectors, which are fetched one by one and given away so. */
function emitSquare(
  f: Body,
  matrix: Matrix,
  fetch: (i: number, j: number) => Operand,
  give: (i: number, j: number, value: Local) => void,
): void {
  const n = matrix[0].length;
  const columns = Array.from(
    { length: n },
    (_, j) => emitMatrix(f, matrix, Array.from({ length: n }, (_, i) => f.vector(fetch(i, j)))),
  );
  for (let i = 0; i < matrix.length; i++) {
    emitMatrix(f, matrix, columns.map((column) => column[i])).forEach((value, j) =>
      give(i, j, value)
    );
  }
}

/** Where a block is: its first image, the images it has, its first row of tiles and their number. */
interface Place {
  readonly image: Local;
  readonly images: Local;
  readonly row: Local;
  readonly rows: Local;
}

function emitPlace(f: Body, block: Operand, b: Blocks, batch: number): Place {
  const image = f.integer(mul(div(block, b.perImage), b.images)), images = f.integer(b.images);
  if (batch % b.images) {
    f.if(i32.gt(add(image, images), batch), () => f.set(images, sub(batch, image)));
  }
  const part = f.integer(rem(block, b.perImage)), row = f.integer(mul(part, b.rows));
  const rows = f.integer(b.rows);
  if (b.lastRows !== b.rows) {
    f.if(i32.eq(part, b.perImage - 1), () => f.set(rows, b.lastRows));
  }
  return { image, images, row, rows };
}

/** An image that tiles are cut from: what bands show of it, and the rows of zeros above. */
interface TileSource {
  readonly band: BandShape;
  readonly top: number;
  /** Rows and columns of a tile. */
  readonly size: number;
}

const sourceOf = (
  height: number,
  width: number,
  channels: number,
  [top, left]: readonly [number, number],
  size: number,
  { tilesX }: Blocks,
): TileSource => ({
  band: { height, width, channels, left, dilation: 1, columns: (tilesX - 1) * M + size },
  ...{ top, size },
});

const bandBytes = ({ band, size }: TileSource, { rows }: Blocks) =>
  bandRow(band) * ((rows - 1) * M + size);

/** Layout of transformed tiles: [frequency][tile][channel]. */
const frequencyStride = (tiles: number, channels: number) => 4 * tiles * channels + SKEW;

/**
 * Cuts tiles from an image and transforms them into [frequency][tile][channel]; the rows of tiles
 * that the last block does not have become zeros.
 */
function emitTransform(
  f: Body,
  source: TileSource,
  matrix: Matrix,
  blocks: Blocks,
  place: Place,
  x: Operand,
  band: Local,
  target: Local,
  tiles: number,
): void {
  const { band: shape, top, size } = source, { height, width, channels } = shape;
  const row = bandRow(shape), pixel = 4 * channels, stride = frequencyStride(tiles, channels);
  const image = f.integer(add(x, mul(place.image, height * width * pixel)));
  const out = f.integer(target), at = f.local("i32"), end = f.local("i32"), start = f.local("i32");
  f.repeat(place.images, () => {
    const bandRows = f.integer(add(mul(place.rows, M), size - M));
    emitBand(f, shape, image, add(mul(place.row, M), -top), bandRows, band);
    f.set(start, band);
    f.repeat(place.rows, () => {
      f.set(at, start);
      f.repeat(blocks.tilesX, () => {
        f.set(end, add(at, pixel));
        f.loop(at, end, 16, () => {
          emitSquare(
            f,
            matrix,
            (i, j) => load(at, i * row + j * pixel),
            (i, j, value) => f.store(out, (i * N + j) * stride, value),
          );
          f.increase(out, 16);
        });
        f.increase(at, (M - 1) * pixel);
      });
      f.increase(start, M * row);
    });
    f.increase(image, height * width * pixel);
  });
  // Tiles that this block lacks count as zeros.
  const last = f.integer(add(target, tiles * pixel));
  f.if(i32.lt(out, last), () => {
    f.loop(out, last, 16, () => {
      for (let q = 0; q < FREQUENCIES; q++) f.store(out, q * stride, f.constant(0));
    });
  });
}

/** A convolution whose weights are transformed already. */
interface Correlation {
  readonly label: string;
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly outChannels: number;
  readonly padding: readonly [top: number, left: number];
  readonly x: Pointer;
  readonly y: Storage;
  readonly bias?: Pointer;
}

/** The kernel that computes blocks of a convolution. */
function correlate(c: Correlation, weights: Scratch, { pair }: WasmTarget): WasmKernel {
  const { batch, height, width, channels, outHeight, outWidth, outChannels, padding } = c;
  const blocks = makeBlocks(batch, outHeight, outWidth), panel = panelWidth(pair);
  const source = sourceOf(height, width, channels, padding, N, blocks);
  const { tiles } = blocks, tilesUp = Math.ceil(tiles / 4) * 4;
  const vStride = frequencyStride(tilesUp, channels),
    mStride = frequencyStride(tilesUp, outChannels);
  const bandAt = 0, vAt = Math.ceil(bandBytes(source, blocks) / 64) * 64 + 64;
  const mAt = vAt + FREQUENCIES * vStride, dumpAt = mAt + FREQUENCIES * mStride;
  const pixel = 4 * outChannels;
  const { bias } = c;
  return {
    label: c.label,
    key: `winograd ${
      JSON.stringify([source, blocks, batch, outHeight, outWidth, outChannels, pair, !!bias])
    }`,
    pointers: [c.x, pointFrom(weights), pointAt(c.y), ...(bias ? [bias] : [])],
    tasks: blocks.count,
    scratch: dumpAt + pixel + 64,
    build(f, task, [x, u, y, biasAt], scratch) {
      const place = emitPlace(f, task, blocks, batch);
      const band = f.integer(add(scratch, bandAt)), v = f.integer(add(scratch, vAt));
      const m = f.integer(add(scratch, mAt)), dump = f.integer(add(scratch, dumpAt));
      emitTransform(f, source, F4.bt, blocks, place, x, band, v, tilesUp);

      const registers = tileRegisters(f, TILE_ROWS, panel / 4);
      const by = f.integer(u), a = f.local("i32"), to = f.local("i32");
      const vq = f.integer(v), mq = f.integer(m);
      f.repeat(FREQUENCIES, () => {
        const column = f.integer(0);
        f.set(column, 0);
        f.loop(column, pixel, 4 * panel, () => {
          f.set(a, vq);
          f.set(to, add(mq, column));
          emitRows(
            f,
            tiles,
            {
              ...{ vectors: panel / 4, aRow: 4 * channels, aK: 4, bK: 4 * panel, cRow: pixel },
            },
            registers,
            { a, b: by, c: to, k: channels },
          );
          f.increase(by, 4 * panel * channels);
        });
        f.increase(vq, vStride);
        f.increase(mq, mStride);
      });

      emitOutput(f, c, blocks, place, { y, m, dump, mStride, ...(bias ? { biasAt } : {}) });
    },
  };
}

/** Transforms products back, adds the bias, and stores the pixels that exist. */
function emitOutput(
  f: Body,
  { outHeight, outWidth, outChannels }: Correlation,
  { tilesX }: Blocks,
  place: Place,
  { y, m, dump, mStride, biasAt }: {
    y: Local;
    m: Local;
    dump: Local;
    mStride: number;
    biasAt?: Local;
  },
): void {
  const pixel = 4 * outChannels, rowBytes = outWidth * pixel;
  const isRagged = outHeight % M > 0 || outWidth % M > 0;
  const image = f.integer(add(y, mul(place.image, outHeight * rowBytes)));
  const from = f.integer(m), at = f.local("i32"), end = f.local("i32");
  const top = f.local("i32"), left = f.local("i32"), channel = f.local("i32");
  const places = Array.from({ length: isRagged ? M * M : 0 }, () => f.local("i32"));
  f.repeat(place.images, () => {
    f.set(top, mul(place.row, M));
    f.repeat(place.rows, () => {
      f.set(left, 0);
      f.loop(left, tilesX * M, M, () => {
        f.set(at, add(image, add(mul(top, rowBytes), mul(left, pixel))));
        places.forEach((to, k) => {
          const [i, j] = [Math.floor(k / M), k % M];
          f.set(to, add(at, i * rowBytes + j * pixel));
          // Pixels beyond the edge go to a place that nobody reads.
          const isBeyond = i32.or(
            i32.ge(add(top, i), outHeight),
            i32.ge(add(left, j), outWidth),
          );
          f.if(isBeyond, () => f.set(to, dump));
        });
        f.set(end, add(from, pixel));
        f.set(channel, 0);
        f.loop(from, end, 16, () => {
          const bias = biasAt ? f.vector(load(add(biasAt, channel))) : undefined;
          emitSquare(f, F4.at, (i, j) => load(from, (i * N + j) * mStride), (i, j, value) => {
            const sum = bias ? f32x4.add(value, bias) : value;
            if (isRagged) f.store(add(places[i * M + j], channel), 0, sum);
            else f.store(add(at, channel), i * rowBytes + j * pixel, sum);
          });
          f.increase(channel, 16);
        });
      });
      f.increase(top, M);
    });
    f.increase(image, outHeight * rowBytes);
  });
}

/** G w Gᵀ as panels [frequency][out / width][in][width]. */
function transformWeights(
  w: Tensor,
  channels: number,
  outChannels: number,
  isTurned: boolean,
  { pair }: WasmTarget,
): { kernel: WasmKernel; weights: Scratch } {
  const panel = panelWidth(pair), weights = new Scratch(FREQUENCIES * channels * outChannels);
  const stride = 4 * channels * outChannels;
  const kernel: WasmKernel = {
    label: "conv2d, weights",
    key: `winograd w ${channels} ${outChannels} ${isTurned} ${pair}`,
    pointers: [pointTo(w), pointAt(weights)],
    tasks: Math.ceil(channels / 8),
    scratch: 0,
    build(f, task, [from, to]) {
      const c = f.integer(mul(task, 8)), last = f.integer(add(c, 8));
      f.if(i32.gt(last, channels), () => f.set(last, channels));
      const at = f.local("i32"), out = f.local("i32"), k = f.local("i32");
      // Turned round, w[2 - i][2 - j][k][c] is wanted: input and output change places.
      const fetch = (i: number, j: number): Operand => {
        if (!isTurned) return load(at, (3 * i + j) * stride);
        const offset = (8 - (3 * i + j)) * stride;
        const column = (n: number) => f32.load(at, offset + n * 4 * channels);
        return [1, 2, 3].reduce<Operand>(
          (v, n) => f32x4.replaceLane(v, n, column(n)),
          loadSplat(at, offset),
        );
      };
      f.loop(c, last, 1, () => {
        f.set(k, 0);
        f.loop(k, outChannels, 4, () => {
          const step = isTurned
            ? add(mul(k, 4 * channels), mul(c, 4))
            : add(mul(c, 4 * outChannels), mul(k, 4));
          f.set(at, add(from, step));
          const place = mul(add(mul(div(k, panel), channels), c), panel);
          f.set(out, add(to, mul(add(place, rem(k, panel)), 4)));
          emitSquare(f, F4.g, fetch, (i, j, value) => f.store(out, (i * N + j) * stride, value));
        });
      });
    },
  };
  return { kernel, weights };
}

/** y from x, w and perhaps a bias. */
export function forwardByWinograd(
  s: ConvSizes,
  x: Tensor,
  w: Tensor,
  bias: Tensor | undefined,
  y: Tensor,
  target: WasmTarget,
): WasmKernel[] {
  const { kernel, weights } = transformWeights(w, s.channels, s.outChannels, false, target);
  const main = correlate(
    {
      label: "conv2d",
      ...{ batch: s.batch, height: s.height, width: s.width, channels: s.channels },
      ...{ outHeight: s.outHeight, outWidth: s.outWidth, outChannels: s.outChannels },
      ...{ padding: [s.padding[0], s.padding[2]], x: pointTo(x), y },
      ...(bias ? { bias: pointTo(bias) } : {}),
    },
    weights,
    target,
  );
  return [kernel, main];
}

/** dx from dy and w: a convolution with the weights turned round. */
export function inputGradByWinograd(
  s: ConvSizes,
  g: Tensor,
  w: Tensor,
  dx: Tensor,
  target: WasmTarget,
): WasmKernel[] {
  const { kernel, weights } = transformWeights(w, s.outChannels, s.channels, true, target);
  const main = correlate(
    {
      label: "conv2d_input_grad",
      ...{ batch: s.batch, height: s.outHeight, width: s.outWidth, channels: s.outChannels },
      ...{ outHeight: s.height, outWidth: s.width, outChannels: s.channels },
      ...{ padding: [2 - s.padding[0], 2 - s.padding[2]], x: pointTo(g), y: dx },
    },
    weights,
    target,
  );
  return [kernel, main];
}

/** dw from x and dy: per frequency, the product of transformed images, summed over blocks. */
export function weightGradByWinograd(
  s: ConvSizes,
  x: Tensor,
  g: Tensor,
  dw: Tensor,
  target: WasmTarget,
): WasmKernel[] {
  const { batch, channels, outChannels } = s, panel = panelWidth(target.pair);
  const blocks = makeBlocks(batch, s.outHeight, s.outWidth);
  const padding = [s.padding[0], s.padding[2]] as const;
  const source = sourceOf(s.height, s.width, channels, padding, N, blocks);
  const result = sourceOf(s.outHeight, s.outWidth, outChannels, [0, 0], M, blocks);
  const tiles = Math.ceil(blocks.tiles / 4) * 4, elements = FREQUENCIES * channels * outChannels;
  const wanted = Math.max(2, Math.floor(PARTS_BYTES / (4 * elements)));
  const parts = Math.min(blocks.count, MAX_PARTS, wanted), sums = new Scratch(parts * elements);
  const vStride = frequencyStride(tiles, channels), mStride = frequencyStride(tiles, outChannels);
  const bytes = Math.max(bandBytes(source, blocks), bandBytes(result, blocks));
  const vAt = Math.ceil(bytes / 64) * 64 + 64, mAt = vAt + FREQUENCIES * vStride;
  const product: WasmKernel = {
    label: "conv2d_weight_grad",
    key: `winograd dw ${JSON.stringify([source, result, blocks, batch, parts, panel])}`,
    pointers: [pointTo(x), pointTo(g), pointAt(sums)],
    tasks: parts,
    scratch: mAt + FREQUENCIES * mStride + 64,
    build(f, task, [x, g, to], scratch) {
      const registers = tileRegisters(f, TILE_ROWS, panel / 4);
      const sum = f.integer(add(to, mul(task, 4 * elements)));
      emitZeros(f, sum, 4 * elements);
      const v = f.integer(add(scratch, vAt)), m = f.integer(add(scratch, mAt));
      const a = f.local("i32"), b = f.local("i32"), c = f.local("i32");
      const vq = f.local("i32"), mq = f.local("i32"), sq = f.local("i32"), column = f.local("i32");
      const block = f.integer(task);
      f.loop(block, blocks.count, parts, () => {
        const place = emitPlace(f, block, blocks, batch);
        emitTransform(f, source, F4.bt, blocks, place, x, scratch, v, tiles);
        emitTransform(f, result, transposed(F4.at), blocks, place, g, scratch, m, tiles);
        f.set(vq, v);
        f.set(mq, m);
        f.set(sq, sum);
        f.repeat(FREQUENCIES, () => {
          f.set(column, 0);
          f.loop(column, 4 * outChannels, 4 * panel, () => {
            f.set(a, vq);
            f.set(b, add(mq, column));
            f.set(c, add(sq, column));
            const tile = (rows: number) => {
              emitTile(
                f,
                {
                  ...{ rows, vectors: panel / 4, aRow: 4, aK: 4 * channels },
                  ...{ bK: 4 * outChannels, cRow: 4 * outChannels, accumulate: true },
                },
                registers,
                { a, b, c, k: tiles },
              );
              f.increase(a, 4 * rows);
              f.increase(c, 4 * outChannels * rows);
            };
            const full = Math.floor(channels / TILE_ROWS), rest = channels % TILE_ROWS;
            if (full) f.repeat(full, () => tile(TILE_ROWS));
            if (rest) tile(rest);
          });
          f.increase(vq, vStride);
          f.increase(mq, mStride);
          f.increase(sq, 4 * channels * outChannels);
        });
      });
    },
  };
  return [product, transformBack(sums, parts, channels, outChannels, dw)];
}

/** Gᵀ (sum of the parts) G. */
function transformBack(
  sums: Scratch,
  parts: number,
  channels: number,
  outChannels: number,
  dw: Tensor,
): WasmKernel {
  const stride = 4 * channels * outChannels, part = FREQUENCIES * stride;
  return {
    label: "conv2d_weight_grad, back",
    key: `winograd back ${channels} ${outChannels} ${parts}`,
    pointers: [pointFrom(sums), pointAt(dw)],
    tasks: Math.ceil(channels / 8),
    scratch: 0,
    build(f, task, [from, to]) {
      const at = f.integer(add(from, mul(task, 32 * outChannels)));
      const last = f.integer(add(at, 32 * outChannels));
      const limit = f.integer(add(from, stride));
      f.if(i32.gt(last, limit), () => f.set(last, limit));
      const out = f.integer(add(to, mul(task, 32 * outChannels)));
      f.loop(at, last, 16, () => {
        const fetch = (i: number, j: number): Operand => {
          const offset = (i * N + j) * stride;
          let sum: Operand = load(at, offset);
          for (let p = 1; p < parts; p++) sum = f32x4.add(sum, load(at, p * part + offset));
          return sum;
        };
        emitSquare(
          f,
          transposed(F4.g),
          fetch,
          (i, j, value) => f.store(out, (3 * i + j) * stride, value),
        );
        f.increase(out, 16);
      });
    },
  };
}
