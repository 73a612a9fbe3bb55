/**
 * F(4 × 4, 3 × 3) where weights are many and pixels few: transformed, weights would take four times
 * their memory, and more time to come from there than the products. All tiles of the images are
 * transformed first; then a task takes some channels of the result, transforms a slice of their weights
 * at a time, and multiplies it while it is in the second cache.
 *
 * @module
 */

import type { ConvSizes } from "../convolution.ts";
import { Scratch } from "../storage.ts";
import { F4 } from "../winograd.ts";
import { add, load, type Local, mul } from "./assembler.ts";
import { emitRows, panelWidth, TILE_ROWS, tileRegisters } from "./gemm.ts";
import { pointAt, type Pointer, pointFrom, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { emitZeros } from "./padded_rows.ts";
import {
  bandBytes,
  type Blocks,
  emitPlace,
  emitSquare,
  emitTransform,
  FREQUENCIES,
  frequencyStride,
  M,
  N,
  SKEW,
  sourceOf,
  tileKey,
} from "./tiles.ts";
import { type Correlation, emitOutput } from "./winograd.ts";

/** Bytes of transformed weights for each tile that are many, and tiles whose products fit beside. */
const HEAVY_BYTES = 768 << 10, MAX_TILES = 128;
/** Channels of the result that a task makes, for up to so many tiles; half of them for more. */
const SPAN = 64, FEW_TILES = 64;
/** Channels of the images whose weights are transformed at a time, at most. */
const SLICE = 64;

/** All images as one block. */
function wholeBlock(batch: number, height: number, width: number): Blocks {
  const tilesX = Math.ceil(width / M), tilesY = Math.ceil(height / M);
  return {
    ...{ tilesX, tilesY, images: batch, rows: tilesY, lastRows: tilesY, perImage: 1, count: 1 },
    tiles: batch * tilesX * tilesY,
  };
}

/** The largest number up to `most` that divides `n` and is a multiple of `step`. */
function divisorOf(n: number, most: number, step: number): number {
  for (let d = Math.floor(most / step) * step; d > step; d -= step) if (n % d === 0) return d;
  return step;
}

/** Whether a convolution by minimal filtering is faster so. */
export function hasHeavyWeights(s: ConvSizes): boolean {
  const { tiles } = wholeBlock(s.batch, s.outHeight, s.outWidth);
  const bytes = 4 * FREQUENCIES * s.channels * s.outChannels;
  return bytes >= HEAVY_BYTES * tiles && tiles <= MAX_TILES;
}

/** The kernels of a convolution with weights at `w`. */
export function correlateByChannels(
  c: Correlation,
  w: Pointer,
  { pair }: WasmTarget,
): WasmKernel[] {
  const { batch, height, width, channels, outHeight, outWidth, outChannels, bias, epilogue } = c;
  const whole = wholeBlock(batch, outHeight, outWidth), { tiles } = whole;
  const single = wholeBlock(1, outHeight, outWidth), panel = panelWidth(pair);
  const source = sourceOf(height, width, channels, c.padding, N, single, c.input);
  const vStride = frequencyStride(tiles, channels);
  const transformed = new Scratch(FREQUENCIES * vStride / 4);
  const cut: WasmKernel = {
    label: `${c.label}, tiles`,
    key: `winograd tiles ${JSON.stringify([tileKey(source), whole])}`,
    pointers: [...c.x, pointAt(transformed)],
    tasks: batch,
    scratch: bandBytes(source, single) + 64,
    build(f, task, pointers, scratch) {
      const x = pointers.slice(0, -1), to = pointers.at(-1)!;
      const v = f.integer(add(to, mul(task, 4 * single.tiles * channels)));
      const place = emitPlace(f, task, single, batch);
      emitTransform(f, source, F4.bt, single, place, x, scratch, v, single.tiles, vStride);
    },
  };

  const columns = divisorOf(outChannels, tiles > FEW_TILES ? SPAN / 2 : SPAN, panel);
  const slice = divisorOf(channels, SLICE, 4), span = 4 * columns, pixel = 4 * outChannels;
  const uStride = slice * span + SKEW, mStride = frequencyStride(tiles, columns);
  const mAt = Math.ceil(FREQUENCIES * uStride / 64) * 64;
  const dumpAt = mAt + FREQUENCIES * mStride + 64;
  const tap = channels * pixel, panelOf = 4 * panel * slice;
  const main: WasmKernel = {
    label: c.label,
    key: `winograd by channels ${
      JSON.stringify([batch, channels, outHeight, outWidth, outChannels, panel, !!bias])
    } ${epilogue.key}`,
    pointers: [
      ...[w, pointFrom(transformed), pointAt(epilogue.target)],
      ...(bias ? [bias] : []),
      ...epilogue.pointers,
    ],
    tasks: outChannels / columns,
    scratch: dumpAt + pixel + 64,
    build(f, task, [w, v, y, ...others], scratch) {
      const biasAt = bias ? others.shift() : undefined, finish = epilogue.begin(f, y, others);
      const registers = tileRegisters(f, TILE_ROWS, panel / 4);
      const first = f.integer(mul(task, span)), at = f.integer(add(w, first));
      const m = f.integer(add(scratch, mAt)), dump = f.integer(add(scratch, dumpAt));
      const a = f.local("i32"), by = f.local("i32"), to = f.local("i32");
      const vq = f.local("i32"), mq = f.local("i32"), column = f.local("i32");
      const vectors = (start: Local, out: Local) => {
        f.set(a, start);
        f.repeat(columns / panel, () => {
          f.repeat(panel / 4, () => {
            emitSquare(
              f,
              F4.g,
              (i, j) => load(a, (3 * i + j) * tap),
              (i, j, value) => f.store(out, (i * N + j) * uStride, value),
            );
            f.increase(a, 16);
            f.increase(out, 16);
          });
          f.increase(out, panelOf - 4 * panel);
        });
        f.increase(out, 4 * panel - columns / panel * panelOf);
      };
      emitZeros(f, m, FREQUENCIES * mStride);
      const from = f.integer(v), out = f.local("i32");
      f.repeat(channels / slice, () => {
        f.set(out, scratch);
        f.repeat(slice, () => {
          vectors(at, out);
          f.increase(at, pixel);
        });
        f.set(vq, from);
        f.set(mq, m);
        f.set(by, scratch);
        f.repeat(FREQUENCIES, () => {
          f.set(column, 0);
          f.loop(column, span, 4 * panel, () => {
            f.set(a, vq);
            f.set(to, add(mq, column));
            const shape = { vectors: panel / 4, aRow: 4 * channels, aK: 4, bK: 4 * panel };
            emitRows(f, tiles, { ...shape, cRow: span, accumulate: true }, registers, {
              ...{ a, b: by, c: to, k: slice },
            });
            f.increase(by, panelOf);
          });
          f.increase(by, SKEW);
          f.increase(vq, vStride);
          f.increase(mq, mStride);
        });
        f.increase(from, 4 * slice);
      });
      emitOutput(f, c, whole, emitPlace(f, 0, whole, batch), finish, {
        ...{ y, m, dump, mStride, mPixel: span, first, span },
        ...(biasAt ? { biasAt } : {}),
      });
    },
  };
  return [cut, main];
}
