/**
 * Products over bands: convolution as most cases of it are done, forward and backward. The taps of a
 * kernel's row are one run of numbers, so that nothing is unfolded.
 *
 * @module
 */

import { Scratch } from "../storage.ts";
import { add, div, i32, mul, rem } from "./assembler.ts";
import {
  bandRow,
  type BandShape,
  type BandSource,
  emitBand,
  isInMemory,
  sourceKey,
} from "./padded_rows.ts";
import type { Epilogue } from "./epilogue.ts";
import {
  emitPack,
  emitRows,
  type PackShape,
  panelBytes,
  panelWidth,
  TILE_ROWS,
  tileRegisters,
} from "./gemm.ts";
import { pointAt, type Pointer, pointFrom, type WasmKernel, type WasmTarget } from "./kernel.ts";

/** Multiplications that make a task worth while. */
const TASK_WORK = 400_000;
/** Bytes of a band that stay in the second cache beside everything else. */
const BAND_BYTES = 256 * 1024;
/** Packed weights that leave no room for anything else in the second cache, and tasks to read them. */
const HEAVY_BYTES = 512 * 1024, TASKS = 8;

/** A convolution of an image with packed weights, forward or backward. */
export interface Correlation {
  readonly label: string;
  readonly batch: number;
  /** The image as bands show it, and the row that the first row of the result begins with. */
  readonly image: BandShape;
  readonly top: number;
  readonly stride: number;
  readonly kernelHeight: number;
  readonly kernelWidth: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly outChannels: number;
  /** Where the pixels go: every so many rows and columns of the result, from these on. */
  readonly lattice: {
    readonly step: number;
    readonly row: number;
    readonly column: number;
    readonly height: number;
    readonly width: number;
  };
  readonly source: BandSource;
  readonly x: readonly Pointer[];
  readonly w: Pointer;
  readonly pack: PackShape;
  readonly bias?: Pointer;
  readonly epilogue: Epilogue;
}

/** Rows of the result that a task computes. */
export function bandRows(units: number, perRow: number, bytesPerRow: number): number {
  const wanted = Math.ceil(TASK_WORK / perRow);
  const rows = Math.min(
    units,
    Math.max(1, wanted),
    Math.max(1, Math.floor(BAND_BYTES / bytesPerRow)),
  );
  return Math.ceil(units / Math.ceil(units / rows));
}

/** The kernels of a correlation: one packs the weights. */
export function lowerCorrelation(c: Correlation, { pair }: WasmTarget): [WasmKernel, WasmKernel] {
  const { source, epilogue, lattice } = c;
  const { image, stride, kernelHeight, kernelWidth, outHeight, outWidth, outChannels, pack } = c;
  const width = panelWidth(pair), panels = Math.ceil(outChannels / width);
  const panel = panelBytes(pack, width), packed = new Scratch(panels * panel / 4);
  const packing: WasmKernel = {
    label: `${c.label}, pack`,
    key: `pack conv ${JSON.stringify([pack, width])}`,
    pointers: [c.w, pointAt(packed)],
    tasks: panels,
    scratch: 0,
    build: (f, task, [from, to]) => emitPack(f, pack, width, from, task, add(to, mul(task, panel))),
  };
  // Where no zeros are needed and nothing is computed, images are read in place.
  const isInPlace = isInMemory(source, image.channels) && kernelHeight === 1 && c.top === 0 &&
    image.left === 0 && image.columns <= image.width;
  const run = kernelWidth * image.channels;
  const rowBytes = isInPlace ? source.strides[0][1] : bandRow(image);
  const perRow = outWidth * outChannels * run * kernelHeight;
  const isHeavy = panels * panel > HEAVY_BYTES;
  const rows = bandRows(outHeight, isHeavy ? 0 : perRow, stride * rowBytes);
  const bands = Math.ceil(outHeight / rows), tail = outHeight - (bands - 1) * rows;
  const bandHeight = (rows - 1) * stride + kernelHeight, ragged = outChannels % width;
  // Heavy weights are read once by all tasks together, each making some of the channels.
  const wanted = isHeavy ? Math.min(Math.ceil(TASKS / (c.batch * bands)), panels) : 1;
  const group = Math.ceil(panels / wanted), groups = Math.ceil(panels / group);
  const product: WasmKernel = {
    label: c.label,
    key: `conv ${
      JSON.stringify([image, c.top, stride, kernelHeight, kernelWidth, c.batch, outHeight, lattice])
    } ${outWidth} ${outChannels} ${width} ${!!c.bias} ${
      JSON.stringify(sourceKey(source))
    } ${epilogue.key}`,
    pointers: [
      ...[pointFrom(packed), pointAt(epilogue.target)],
      ...(c.bias ? [c.bias] : []),
      ...c.x,
      ...epilogue.pointers,
    ],
    tasks: c.batch * bands * groups,
    scratch: isInPlace ? 0 : bandHeight * rowBytes + 64,
    ...(isInPlace && stride === 1 && lattice.step === 1 && !c.x[0].offset
      ? {
        walk: {
          ...{ input: c.x[0].storage, result: epilogue.target, tasks: groups },
          steps: c.batch * bands,
          before: (step) => {
            const row = Math.floor(step / bands) * outHeight + step % bands * rows;
            return [row * rowBytes, row * outWidth * outChannels * 4];
          },
        },
      }
      : {}),
    build(f, task, [by, y, ...others], scratch) {
      const bias = c.bias ? others.shift() : undefined, x = others.splice(0, c.x.length);
      const finish = epilogue.begin(f, y, others);
      const registers = tileRegisters(f, TILE_ROWS, width / 4);
      const place = f.integer(div(task, groups));
      const n = f.integer(div(place, bands)), band = f.integer(rem(place, bands));
      const first = f.integer(mul(band, rows)), count = f.integer(rows);
      if (tail !== rows) f.if(i32.eq(band, bands - 1), () => f.set(count, tail));
      finish.enterImage(n);
      const images = x.map((start, k) => f.integer(add(start, mul(n, source.strides[k][0]))));
      const top = f.integer(add(mul(first, stride), -c.top));
      const rowsAt = isInPlace ? f.integer(add(images[0], mul(top, rowBytes))) : scratch;
      if (!isInPlace) emitBand(f, image, source, images, top, bandHeight, scratch);
      const p = f.integer(mul(rem(task, groups), group)), end = f.integer(add(p, group));
      if (panels % group) f.if(i32.gt(end, panels), () => f.set(end, panels));
      const a = f.local("i32"), to = f.local("i32"), b = f.integer(add(by, mul(p, panel)));
      const aRow = f.local("i32"), toRow = f.local("i32"), row = f.local("i32");
      const { step, height } = lattice, outRow = lattice.width * outChannels * 4;
      const corner = lattice.row * outRow + lattice.column * outChannels * 4;
      const firstRow = add(mul(n, height), mul(first, step));
      const start = f.integer(add(y, add(mul(firstRow, outRow), corner)));
      const biasAt = bias ? f.integer(add(bias, mul(p, 4 * width))) : undefined,
        column = f.local("i32");
      f.loop(p, end, 1, () => {
        f.set(aRow, rowsAt);
        f.set(toRow, add(start, mul(p, 4 * width)));
        f.set(row, 0);
        f.set(column, mul(p, 4 * width));
        const panelOf = (columns: number) =>
          f.loop(row, count, 1, () => {
            f.set(a, aRow);
            f.set(to, toRow);
            emitRows(
              f,
              outWidth,
              {
                ...{ vectors: width / 4, aRow: stride * image.channels * 4, aK: 4, columns },
                ...{ bK: 4 * width, cRow: 4 * step * outChannels },
                runs: { count: kernelHeight, aSkip: rowBytes - 4 * run, bSkip: 0 },
                ...(biasAt ? { bias: biasAt } : {}),
                finish: (sum, offset, j) =>
                  finish.apply(sum, to, offset, { address: column, offset: 16 * j }),
              },
              registers,
              { a, b, c: to, k: run },
            );
            f.increase(aRow, stride * rowBytes);
            f.increase(toRow, step * outRow);
          });
        if (!ragged) panelOf(width);
        else if (panels === 1) panelOf(ragged);
        else f.if(i32.lt(p, panels - 1), () => panelOf(width), () => panelOf(ragged));
        f.increase(b, panel);
        if (biasAt) f.increase(biasAt, 4 * width);
      });
    },
  };
  return [packing, product];
}
