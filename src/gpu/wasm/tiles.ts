/**
 * Tiles of minimal filtering: how they fall into blocks, how they are cut from images and
 * transformed.
 *
 * @module
 */

import type { Elementwise } from "../compile/loop.ts";
import { applyMatrix, type Matrix } from "../winograd.ts";
import {
  add,
  type Body,
  div,
  f32x4,
  i32,
  load,
  type Local,
  mul,
  type Operand,
  rem,
  sub,
} from "./assembler.ts";
import {
  bandRow,
  type BandShape,
  type BandSource,
  emitBand,
  fusedSource,
  plainSource,
  sourceKey,
} from "./padded_rows.ts";

/** Outputs of a tile along an axis, inputs of it, and frequencies. */
export const M = 4, N = M + 2, FREQUENCIES = N * N;
/** Tiles of a block at most; a multiple of the rows of a register tile. */
const BLOCK = 48;
/** Threads that blocks of whole images are dealt out to evenly. */
const THREADS = 4;
/** Between frequencies: a cache line more than a power of two, for the sets of a cache. */
export const SKEW = 64;

/** How tiles fall into blocks: several images a block, or some rows of tiles of one. */
export interface Blocks {
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

/** Of half of `most` to `most` images a block, the number for which threads have the least to do. */
function imagesOfBlock(batch: number, most: number): number {
  const share = (images: number) => Math.ceil(Math.ceil(batch / images) / THREADS) * images;
  let best = Math.max(1, Math.min(batch, most));
  for (let images = best - 1; 2 * images >= most; images--) {
    if (share(images) < share(best)) best = images;
  }
  return best;
}

/** Deals tiles out to blocks. */
export function makeBlocks(batch: number, height: number, width: number): Blocks {
  const tilesX = Math.ceil(width / M), tilesY = Math.ceil(height / M);
  const images = imagesOfBlock(batch, Math.floor(BLOCK / (tilesX * tilesY)));
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
export function emitSquare(
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
export interface Place {
  readonly image: Local;
  readonly images: Local;
  readonly row: Local;
  readonly rows: Local;
}

/** Finds a block's place. */
export function emitPlace(f: Body, block: Operand, b: Blocks, batch: number): Place {
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
export interface TileSource {
  readonly band: BandShape;
  readonly source: BandSource;
  readonly top: number;
  /** Rows and columns of a tile. */
  readonly size: number;
}

/** Describes an image that tiles of `size` are cut from. */
export const sourceOf = (
  height: number,
  width: number,
  channels: number,
  [top, left]: readonly [number, number],
  size: number,
  { tilesX }: Blocks,
  fused?: Elementwise,
): TileSource => {
  const columns = (tilesX - 1) * M + size;
  const band = { height, width, channels, left, columns };
  return { band, source: fused ? fusedSource(fused) : plainSource(band), top, size };
};

/** What tells the code of a source from that of others. */
export const tileKey = ({ band, source, top, size }: TileSource): unknown => [
  ...[band, sourceKey(source), top, size],
];

/** Bytes of the band that a block's tiles are cut from. */
export const bandBytes = ({ band, size }: TileSource, { rows }: Blocks) =>
  bandRow(band) * ((rows - 1) * M + size);

/** Layout of transformed tiles: [frequency][tile][channel]. */
export const frequencyStride = (tiles: number, channels: number) => 4 * tiles * channels + SKEW;

/**
 * Cuts tiles from an image and transforms them into [frequency][tile][channel]; the rows of tiles
 * that the last block does not have become zeros.
 *
 * @param stride Bytes between frequencies, if there are more tiles than those of a block.
 */
export function emitTransform(
  f: Body,
  tile: TileSource,
  matrix: Matrix,
  blocks: Blocks,
  place: Place,
  x: readonly Operand[],
  band: Local,
  target: Local,
  tiles: number,
  stride: number = frequencyStride(tiles, tile.band.channels),
): void {
  const { band: shape, source, top, size } = tile, { channels } = shape;
  const row = bandRow(shape), pixel = 4 * channels;
  const images = x.map((start, k) => f.integer(add(start, mul(place.image, source.strides[k][0]))));
  const out = f.integer(target), at = f.local("i32"), end = f.local("i32"), start = f.local("i32");
  f.repeat(place.images, () => {
    const bandRows = f.integer(add(mul(place.rows, M), size - M));
    emitBand(f, shape, source, images, add(mul(place.row, M), -top), bandRows, band);
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
    images.forEach((image, k) => f.increase(image, source.strides[k][0]));
  });
  // Tiles that this block lacks count as zeros.
  const last = f.integer(add(target, tiles * pixel));
  f.if(i32.lt(out, last), () => {
    f.loop(out, last, 16, () => {
      for (let q = 0; q < FREQUENCIES; q++) f.store(out, q * stride, f.constant(0));
    });
  });
}
