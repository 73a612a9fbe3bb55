/**
 * The three directions of convolution on the CPU, for any sizes, in terms of correlations. Where it
 * can, `winograd.ts` does it in a quarter of the multiplications.
 *
 * @module
 */

import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import { argument } from "../expression.ts";
import type { Fused } from "../compile/loop.ts";
import type { Shape } from "../../shape.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { add, div, i32, type Local, mul, rem } from "./assembler.ts";
import {
  bandRow,
  type BandShape,
  emitBand,
  emitZeros,
  fusedSource,
  plainSource,
} from "./padded_rows.ts";
import { bandRows, lowerCorrelation } from "./direct_conv.ts";
import { Epilogue } from "./epilogue.ts";
import { emitTile, panelWidth, TILE_ROWS, tileRegisters } from "./gemm.ts";
import { pointAt, pointTo, pointToInput, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { lowerLoop } from "./loop.ts";
import {
  forwardByWinograd,
  inputGradByWinograd,
  suitsWinograd,
  weightGradByWinograd,
} from "./winograd.ts";

/** Parts that the sum of a weight gradient falls into at most. */
const MAX_PARTS = 16;

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
