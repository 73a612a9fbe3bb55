/**
 * Convolutions 3 × 3 with stride 1 by F(4 × 4, 3 × 3) on the CPU. A task takes a block of output
 * tiles: it copies the bands that they need, transforms them, multiplies each of the 36 frequencies
 * with its transformed weights, and transforms back, all in scratch memory that fits the second
 * cache.
 *
 * @module
 */

import type { ConvSizes } from "../convolution.ts";
import type { Elementwise, Fused } from "../compile/loop.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { F4, transposed } from "../winograd.ts";
import { add, type Body, div, f32x4, i32, load, type Local, mul, rem } from "./assembler.ts";
import {
  bandBytes,
  type Blocks,
  emitPlace,
  emitSquare,
  emitTransform,
  FREQUENCIES,
  frequencyStride,
  M,
  makeBlocks,
  N,
  type Place,
  sourceOf,
  tileKey,
} from "./tiles.ts";
import { correlateByChannels, hasHeavyWeights } from "./winograd_by_channels.ts";
import { filterStride, transformBack, transformWeights } from "./winograd_weights.ts";
import { emitZeros } from "./padded_rows.ts";
import { Epilogue, type EpilogueCode } from "./epilogue.ts";
import { emitRows, emitTile, panelWidth, TILE_ROWS, tileRegisters } from "./gemm.ts";
import {
  pointAt,
  type Pointer,
  pointFrom,
  pointTo,
  pointToInput,
  type WasmKernel,
  type WasmTarget,
} from "./kernel.ts";

/** Fewer channels than this are not worth the transforms. */
const MIN_CHANNELS = 16;
/** Tiles that make up for the transformation of the weights, which is as much work as for 4 tiles. */
const MIN_TILES = 8;
/** Tasks that are wanted for threads to share, and channels that make up for a second transform. */
const TASKS = 4, MIN_SPAN = 32;
/** Bytes that parts of a weight gradient may take together, and how many parts there are at most. */
const PARTS_BYTES = 16 << 20, MAX_PARTS = 16;
/** Whether a convolution can be computed by this file. */
export function suitsWinograd(s: ConvSizes, { pair }: WasmTarget): boolean {
  const width = panelWidth(pair);
  return s.stride === 1 && s.kernelHeight === 3 && s.kernelWidth === 3 &&
    s.channels % width === 0 && s.outChannels % width === 0 &&
    s.channels >= MIN_CHANNELS && s.outChannels >= MIN_CHANNELS &&
    s.outHeight * s.outWidth >= 4 * M &&
    s.batch * Math.ceil(s.outHeight / M) * Math.ceil(s.outWidth / M) >= MIN_TILES;
}

/** A convolution as kernels see it, beside its weights. */
export interface Correlation {
  readonly label: string;
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly outChannels: number;
  readonly padding: readonly [top: number, left: number];
  readonly input: Elementwise | undefined;
  readonly x: readonly Pointer[];
  readonly bias?: Pointer;
  readonly epilogue: Epilogue;
}

/** The kernel that computes blocks of a convolution. */
function correlate(c: Correlation, weights: Scratch, { pair }: WasmTarget): WasmKernel {
  const { batch, height, width, channels, outHeight, outWidth, outChannels, padding } = c;
  const blocks = makeBlocks(batch, outHeight, outWidth), panel = panelWidth(pair);
  const source = sourceOf(height, width, channels, padding, N, blocks, c.input);
  const { tiles } = blocks, tilesUp = Math.ceil(tiles / 4) * 4;
  const vStride = frequencyStride(tilesUp, channels),
    mStride = frequencyStride(tilesUp, outChannels);
  // The band is no longer needed when there are products.
  const first = Math.max(bandBytes(source, blocks), FREQUENCIES * mStride);
  const vAt = Math.ceil(first / 64) * 64 + 64, dumpAt = vAt + FREQUENCIES * vStride;
  const pixel = 4 * outChannels;
  const { bias, epilogue } = c;
  // With few blocks, several tasks share one: each makes some of the channels.
  let groups = Math.min(Math.ceil(TASKS / blocks.count), Math.ceil(outChannels / MIN_SPAN));
  while (outChannels / panel % groups) groups--;
  const span = pixel / groups;
  return {
    label: c.label,
    key: `winograd ${
      JSON.stringify([tileKey(source), blocks, batch, outHeight, outWidth])
    } ${outChannels} ${pair} ${!!bias} ${epilogue.key}`,
    pointers: [
      ...[pointFrom(weights), pointAt(epilogue.target)],
      ...(bias ? [bias] : []),
      ...c.x,
      ...epilogue.pointers,
    ],
    tasks: blocks.count * groups,
    scratch: dumpAt + pixel + 64,
    build(f, task, [u, y, ...others], scratch) {
      const biasAt = bias ? others.shift() : undefined, x = others.splice(0, c.x.length);
      const finish = epilogue.begin(f, y, others);
      const place = emitPlace(f, f.integer(div(task, groups)), blocks, batch);
      const first = f.integer(mul(rem(task, groups), span));
      const v = f.integer(add(scratch, vAt)), m = f.integer(scratch);
      const dump = f.integer(add(scratch, dumpAt));
      emitTransform(f, source, F4.bt, blocks, place, x, m, v, tilesUp);

      const registers = tileRegisters(f, TILE_ROWS, panel / 4);
      const by = f.integer(add(u, mul(first, channels))), a = f.local("i32"), to = f.local("i32");
      const vq = f.integer(v), mq = f.integer(add(m, first)), column = f.local("i32");
      f.repeat(FREQUENCIES, () => {
        f.set(column, 0);
        f.loop(column, span, 4 * panel, () => {
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
        f.increase(by, filterStride(channels, outChannels) - span * channels);
        f.increase(vq, vStride);
        f.increase(mq, mStride);
      });

      const at = {
        ...{ y, m: f.integer(add(m, first)), dump, mStride, mPixel: pixel, first, span },
        ...(biasAt ? { biasAt } : {}),
      };
      emitOutput(f, c, blocks, place, finish, at);
    },
  };
}

/** Transforms products back, adds the bias, and stores the pixels that exist. */
export function emitOutput(
  f: Body,
  { outHeight, outWidth, outChannels, epilogue }: Correlation,
  { tilesX }: Blocks,
  place: Place,
  finish: EpilogueCode,
  { y, m, dump, mStride, mPixel, first, span, biasAt }: {
    y: Local;
    /** Where the products of the first channel are that is made. */
    m: Local;
    dump: Local;
    /** Bytes between frequencies of products, and between tiles. */
    mStride: number;
    mPixel: number;
    /** Bytes from a pixel's start to the channels that are made, and how many bytes those are. */
    first: Local;
    span: number;
    biasAt?: Local;
  },
): void {
  const pixel = 4 * outChannels, rowBytes = outWidth * pixel;
  const isRagged = outHeight % M > 0 || outWidth % M > 0;
  const image = f.integer(add(y, mul(place.image, outHeight * rowBytes)));
  const from = f.integer(m), at = f.local("i32"), end = f.local("i32");
  const top = f.local("i32"), left = f.local("i32"), channel = f.local("i32");
  const places = Array.from({ length: isRagged ? M * M : 0 }, () => f.local("i32"));
  // What an epilogue reads beside a pixel beyond the edge is read beside the tile's first pixel.
  const reads = places.map((to) => epilogue.readsLikeResult ? f.local("i32") : to);
  const n = f.integer(place.image);
  f.repeat(place.images, () => {
    finish.enterImage(n);
    f.increase(n, 1);
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
          if (reads[k] !== to) {
            f.set(reads[k], to);
            f.if(isBeyond, () => f.set(reads[k], at));
          }
          f.if(isBeyond, () => f.set(to, dump));
        });
        f.set(end, add(from, span));
        f.set(channel, first);
        f.loop(from, end, 16, () => {
          const bias = biasAt ? f.vector(load(add(biasAt, channel))) : undefined;
          emitSquare(f, F4.at, (i, j) => load(from, (i * N + j) * mStride), (i, j, value) => {
            const sum = bias ? f32x4.add(value, bias) : value, k = i * M + j;
            const offset = isRagged ? 0 : i * rowBytes + j * pixel;
            const from = add(isRagged ? reads[k] : at, channel);
            const result = finish.apply(sum, from, offset, { address: channel, offset: 0 });
            f.store(add(isRagged ? places[k] : at, channel), offset, result);
          });
          f.increase(channel, 16);
        });
        f.increase(from, mPixel - span);
      });
      f.increase(top, M);
    });
    f.increase(image, outHeight * rowBytes);
  });
}

/** y from x, w and perhaps a bias. */
export function forwardByWinograd(
  s: ConvSizes,
  node: Tensor,
  target: WasmTarget,
  fused: Fused,
): WasmKernel[] {
  const [x, w, bias] = node.inputs;
  const correlation: Correlation = {
    label: "conv2d",
    ...{ batch: s.batch, height: s.height, width: s.width, channels: s.channels },
    ...{ outHeight: s.outHeight, outWidth: s.outWidth, outChannels: s.outChannels },
    padding: [s.padding[0], s.padding[2]],
    ...{ input: fused.input, x: pointToInput(x, fused.input) },
    ...(bias ? { bias: pointTo(bias) } : {}),
    epilogue: new Epilogue(node, fused),
  };
  if (hasHeavyWeights(s)) return correlateByChannels(correlation, pointTo(w), target);
  const { kernel, weights } = transformWeights(w, s.channels, s.outChannels, false, target);
  return [kernel, correlate(correlation, weights, target)];
}

/** dx from dy and w: a convolution with the weights turned round. */
export function inputGradByWinograd(
  s: ConvSizes,
  node: Tensor,
  target: WasmTarget,
  fused: Fused,
): WasmKernel[] {
  const [g, w] = node.inputs;
  const { kernel, weights } = transformWeights(w, s.outChannels, s.channels, true, target);
  const main = correlate(
    {
      label: "conv2d_input_grad",
      ...{ batch: s.batch, height: s.outHeight, width: s.outWidth, channels: s.outChannels },
      ...{ outHeight: s.height, outWidth: s.width, outChannels: s.channels },
      padding: [2 - s.padding[0], 2 - s.padding[2]],
      ...{ input: undefined, x: [pointTo(g)], epilogue: new Epilogue(node, fused) },
    },
    weights,
    target,
  );
  return [kernel, main];
}

/** dw from x and dy: per frequency, the product of transformed images, summed over blocks. */
export function weightGradByWinograd(
  s: ConvSizes,
  dw: Tensor,
  target: WasmTarget,
): WasmKernel[] {
  const [x, g] = dw.inputs;
  const { batch, channels, outChannels } = s, panel = panelWidth(target.pair);
  const blocks = makeBlocks(batch, s.outHeight, s.outWidth);
  const padding = [s.padding[0], s.padding[2]] as const;
  const source = sourceOf(s.height, s.width, channels, padding, N, blocks);
  const result = sourceOf(s.outHeight, s.outWidth, outChannels, [0, 0], M, blocks);
  const stride = filterStride(channels, outChannels), elements = FREQUENCIES * stride / 4;
  const tiles = Math.ceil(blocks.tiles / 4) * 4;
  const wanted = Math.max(2, Math.floor(PARTS_BYTES / (4 * elements)));
  const parts = Math.min(blocks.count, MAX_PARTS, wanted), sums = new Scratch(parts * elements);
  const vStride = frequencyStride(tiles, channels), mStride = frequencyStride(tiles, outChannels);
  const bytes = Math.max(bandBytes(source, blocks), bandBytes(result, blocks));
  const vAt = Math.ceil(bytes / 64) * 64 + 64, mAt = vAt + FREQUENCIES * vStride;
  const product: WasmKernel = {
    label: "conv2d_weight_grad",
    key: `winograd dw ${
      JSON.stringify([tileKey(source), tileKey(result), blocks, batch, parts, panel])
    }`,
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
        emitTransform(f, source, F4.bt, blocks, place, [x], scratch, v, tiles);
        emitTransform(f, result, transposed(F4.at), blocks, place, [g], scratch, m, tiles);
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
          f.increase(sq, stride);
        });
      });
    },
  };
  return [product, transformBack(sums, parts, channels, outChannels, dw)];
}
