/**
 * Convolution on the CPU, all three directions, any sizes: products over bands, in which the taps of
 * a kernel's row are one run of numbers. Where it can,
 * `winograd.ts` does it in a quarter of the multiplications.
 *
 * @module
 */

import { argument } from "../expression.ts";
import type { Fused } from "../loop.ts";
import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import type { Shape } from "../shape.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { add, div, i32, type Local, mul, rem } from "./assembler.ts";
import {
  bandRow,
  type BandShape,
  type BandSource,
  emitBand,
  emitZeros,
  fusedSource,
  plainSource,
} from "./band.ts";
import { Epilogue } from "./epilogue.ts";
import {
  emitPack,
  emitRows,
  emitTile,
  type PackShape,
  panelBytes,
  panelWidth,
  TILE_ROWS,
  tileRegisters,
} from "./gemm.ts";
import {
  pointAt,
  type Pointer,
  pointFrom,
  pointTo,
  pointToInput,
  type WasmKernel,
  type WasmTarget,
} from "./kernel.ts";
import { lowerLoop } from "./loop.ts";
import {
  forwardByWinograd,
  inputGradByWinograd,
  suitsWinograd,
  weightGradByWinograd,
} from "./winograd.ts";

/** Multiplications that make a task worth while. */
const TASK_WORK = 400_000;
/** Bytes of a band that stay in the second cache beside everything else. */
const BAND_BYTES = 256 * 1024;
/** Packed weights that leave no room for anything else in the second cache, and tasks to read them. */
const HEAVY_BYTES = 512 * 1024, TASKS = 8;
/** Parts that the sum of a weight gradient falls into at most. */
const MAX_PARTS = 16;

/** A convolution of an image with packed weights, forward or backward. */
interface Correlation {
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

/** What tells the code of a source from that of others. */
const sourceKey = ({ expression, strides }: BandSource) => JSON.stringify([expression.id, strides]);

/** Rows of the result that a task computes. */
function bandRows(units: number, perRow: number, bytesPerRow: number): number {
  const wanted = Math.ceil(TASK_WORK / perRow);
  const rows = Math.min(
    units,
    Math.max(1, wanted),
    Math.max(1, Math.floor(BAND_BYTES / bytesPerRow)),
  );
  return Math.ceil(units / Math.ceil(units / rows));
}

function lowerCorrelation(c: Correlation, { pair }: WasmTarget): WasmKernel[] {
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
  const isInPlace = source.expression === argument(0) && kernelHeight === 1 && c.top === 0 &&
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
    } ${outWidth} ${outChannels} ${width} ${!!c.bias} ${sourceKey(source)} ${epilogue.key}`,
    pointers: [
      ...[pointFrom(packed), pointAt(epilogue.target)],
      ...(c.bias ? [c.bias] : []),
      ...c.x,
      ...epilogue.pointers,
    ],
    tasks: c.batch * bands * groups,
    scratch: isInPlace ? 0 : bandHeight * rowBytes + 64,
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

/** Offsets of the taps of a kernel `[height, width, in, out]` in bytes, in order. */
const tapOffsets = (s: ConvSizes) =>
  Array.from(
    { length: s.kernelHeight * s.kernelWidth },
    (_, tap) => 4 * tap * s.channels * s.outChannels,
  );

/** y from x, w and perhaps a bias. */
export function lowerForward(
  node: Tensor<Window>,
  target: WasmTarget,
  fused: Fused,
): WasmKernel[] {
  const [x, w, bias] = node.inputs, s = convSizes(x.shape, w.shape, node.shape, node.attributes);
  if (suitsWinograd(s, target)) return forwardByWinograd(s, node, target, fused);
  const [top, , left] = s.padding;
  const image: BandShape = {
    ...{ height: s.height, width: s.width, channels: s.channels, left },
    columns: (s.outWidth - 1) * s.stride + s.kernelWidth,
  };
  return lowerCorrelation({
    label: "conv2d",
    ...{ batch: s.batch, top, stride: s.stride, image },
    source: fused.input ? fusedSource(fused.input) : plainSource(image),
    ...{ kernelHeight: s.kernelHeight, kernelWidth: s.kernelWidth },
    ...{ outHeight: s.outHeight, outWidth: s.outWidth, outChannels: s.outChannels },
    lattice: { step: 1, row: 0, column: 0, height: s.outHeight, width: s.outWidth },
    ...{ x: pointToInput(x, fused.input), w: pointTo(w), epilogue: new Epilogue(node, fused) },
    ...(bias ? { bias: pointTo(bias) } : {}),
    pack: {
      ...{ taps: tapOffsets(s), inner: s.channels, innerStride: 4 * s.outChannels },
      ...{ columns: s.outChannels, columnStride: 4 },
    },
  }, target);
}

/** Pixels of a stride that the same taps of a kernel reach, along one axis. */
interface Phase {
  /** The first of them, and how many there are. */
  readonly first: number;
  readonly count: number;
  /** Taps in the order of the pixels of dy that they meet; none where nothing reaches. */
  readonly taps: readonly number[];
  /** Zeros before the pixels of dy that the first one meets. */
  readonly before: number;
}

/** The phases of an axis of `size` pixels with `padding` zeros before it. */
const phasesOf = (size: number, kernel: number, stride: number, padding: number): Phase[] =>
  Array.from({ length: Math.min(stride, size) }, (_, first) => {
    const from = (first + padding) % stride;
    const taps = Array.from(
      { length: Math.max(0, Math.ceil((kernel - from) / stride)) },
      (_, j) => from + j * stride,
    ).reverse();
    const count = Math.ceil((size - first) / stride);
    return { first, count, taps, before: taps.length - 1 - Math.floor((first + padding) / stride) };
  });

/** dx from dy and w: for each phase of the stride, a convolution of dy with the taps that reach it. */
export function lowerInputGrad(
  node: Tensor<Window & { shape: Shape }>,
  target: WasmTarget,
  fused: Fused,
): WasmKernel[] {
  const [g, w] = node.inputs, s = convSizes(node.shape, w.shape, g.shape, node.attributes);
  if (suitsWinograd(s, target)) return inputGradByWinograd(s, node, target, fused);
  const tapBytes = 4 * s.channels * s.outChannels;
  const up = phasesOf(s.height, s.kernelHeight, s.stride, s.padding[0]);
  const across = phasesOf(s.width, s.kernelWidth, s.stride, s.padding[2]);
  const phases = up.flatMap((y) =>
    across.map((x) => {
      // Where no tap reaches, one of zeros does.
      const isReached = y.taps.length > 0 && x.taps.length > 0;
      const taps = y.taps.flatMap((i) => x.taps.map((j) => tapBytes * (i * s.kernelWidth + j)));
      const [kernelHeight, kernelWidth] = isReached ? [y.taps.length, x.taps.length] : [1, 1];
      const image: BandShape = {
        ...{ height: s.outHeight, width: s.outWidth, channels: s.outChannels },
        ...{ left: isReached ? x.before : 0, columns: x.count + kernelWidth - 1 },
      };
      return lowerCorrelation({
        label: "conv2d_input_grad",
        ...{ batch: s.batch, top: isReached ? y.before : 0, stride: 1, image },
        ...{ source: plainSource(image), kernelHeight, kernelWidth },
        ...{ outHeight: y.count, outWidth: x.count, outChannels: s.channels },
        lattice: {
          ...{ step: s.stride, row: y.first, column: x.first },
          ...{ height: s.height, width: s.width },
        },
        ...{ x: [pointTo(g)], w: pointTo(w), epilogue: new Epilogue(node, fused) },
        pack: {
          ...{ taps: isReached ? taps : [undefined], inner: s.outChannels, innerStride: 4 },
          ...{ columns: s.channels, columnStride: 4 * s.outChannels },
        },
      }, target);
    })
  );
  return [...phases.map(([packing]) => packing), ...phases.map(([, product]) => product)];
}

/** dw from x and dy: parts of the sum over pixels, then their sum. */
export function lowerWeightGrad(
  node: Tensor<Window & { shape: Shape }>,
  target: WasmTarget,
): WasmKernel[] {
  const [x, g] = node.inputs, s = convSizes(x.shape, node.shape, g.shape, node.attributes);
  if (suitsWinograd(s, target)) return weightGradByWinograd(s, node, target);
  const { stride, kernelHeight, kernelWidth, channels, outHeight, outWidth, outChannels } = s;
  const [top, , left] = s.padding, width = panelWidth(target.pair);
  const panels = Math.ceil(outChannels / width), columns = panels * width;
  const image: BandShape = {
    ...{ height: s.height, width: s.width, channels, left },
    columns: (outWidth - 1) * stride + kernelWidth,
  };
  const run = kernelWidth * channels, rowBytes = bandRow(image);
  const perRow = outWidth * outChannels * run * kernelHeight;
  const rows = bandRows(outHeight, perRow, stride * rowBytes), bands = Math.ceil(outHeight / rows);
  const tail = outHeight - (bands - 1) * rows, bandHeight = (rows - 1) * stride + kernelHeight;
  const units = s.batch * bands, parts = Math.min(units, MAX_PARTS);
  const elements = kernelHeight * run * columns, sums = new Scratch(parts * elements);
  const product: WasmKernel = {
    label: "conv2d_weight_grad",
    key: `conv dw ${
      JSON.stringify([image, top, stride, kernelHeight, kernelWidth, s.batch, outHeight])
    } ${outWidth} ${outChannels} ${width}`,
    pointers: [pointTo(x), pointTo(g), pointAt(sums)],
    tasks: parts,
    scratch: bandHeight * rowBytes + 64,
    build(f, task, [x, g, to], scratch) {
      const registers = tileRegisters(f, TILE_ROWS, width / 4);
      const sum = f.integer(add(to, mul(task, 4 * elements)));
      emitZeros(f, sum, 4 * elements);
      // Units are dealt out like cards, so that parts differ by one at most.
      const unit = f.integer(task), band = f.local("i32"), n = f.local("i32");
      const first = f.local("i32"), count = f.local("i32");
      const a = f.local("i32"), b = f.local("i32"), c = f.local("i32"), p = f.local("i32");
      const gStart = f.local("i32");
      const step = (i: Local, rowsOfTile: number) => {
        emitTile(
          f,
          {
            ...{ rows: rowsOfTile, vectors: width / 4, aRow: 4, aK: 4 * stride * channels },
            ...{ bK: 4 * outChannels, cRow: 4 * columns, accumulate: true },
            runs: {
              count,
              aSkip: stride * (rowBytes - outWidth * 4 * channels),
              bSkip: 0,
            },
          },
          registers,
          { a: i, b, c, k: outWidth },
        );
        f.increase(i, 4 * rowsOfTile);
        f.increase(c, 4 * columns * rowsOfTile);
      };
      f.loop(unit, units, parts, () => {
        f.set(n, div(unit, bands));
        f.set(band, rem(unit, bands));
        f.set(first, mul(band, rows));
        f.set(count, rows);
        if (tail !== rows) f.if(i32.eq(band, bands - 1), () => f.set(count, tail));
        const start = f.integer(add(x, mul(n, s.height * s.width * channels * 4)));
        emitBand(
          f,
          image,
          plainSource(image),
          [start],
          add(mul(first, stride), -top),
          bandHeight,
          scratch,
        );
        f.set(gStart, add(g, mul(add(mul(n, outHeight), first), outWidth * outChannels * 4)));
        f.repeat(kernelHeight, (ty) => {
          f.set(p, 0);
          f.loop(p, panels, 1, () => {
            f.set(a, add(scratch, mul(ty, rowBytes)));
            f.set(b, add(gStart, mul(p, 4 * width)));
            f.set(c, add(sum, add(mul(ty, 4 * run * columns), mul(p, 4 * width))));
            const full = Math.floor(run / TILE_ROWS), rest = run % TILE_ROWS;
            if (full) f.repeat(full, () => step(a, TILE_ROWS));
            if (rest) step(a, rest);
          });
        });
      });
    },
  };
  const inOrder = [elements, columns, 1];
  return [
    product,
    ...lowerLoop({
      label: "conv2d_weight_grad, parts",
      domain: [parts, kernelHeight * run, outChannels],
      summed: [true, false, false],
      operands: [{ storage: sums, strides: inOrder, offset: 0 }],
      results: [{
        ...{ storage: node, strides: [0, outChannels, 1], offset: 0 },
        expression: argument(0),
      }],
    }, target),
  ];
}
