/**
 * Bands: some rows of an image with zeros around them, copied to a thread's scratch memory, so that
 * the kernels of convolutions know no borders.
 *
 * @module
 */

import { argument, type Expression } from "../expression.ts";
import type { Elementwise } from "../compile/loop.ts";
import { add, type Body, div, i32, load, type Local, mul, type Operand } from "./assembler.ts";
import { emitExpressions } from "./vector.ts";

/** Where the numbers of a band come from: an expression over operands, by default the image itself. */
export interface BandSource {
  readonly expression: Expression;
  /** Byte strides of each operand: from image to image, row to row, pixel to pixel. */
  readonly strides: readonly (readonly [image: number, row: number, column: number])[];
  /** How many rows and columns in a row are the same. */
  readonly repeat: readonly [rows: number, columns: number];
}

/** An image and the window of it that a band shows. */
export interface BandShape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** Columns of zeros on the left; negative where columns are left out. */
  readonly left: number;
  /** Columns of the band. */
  readonly columns: number;
}

/** Bytes of a row of a band. */
export const bandRow = ({ columns, channels }: BandShape): number => 4 * columns * channels;

/** Writes zeros. */
export function emitZeros(f: Body, to: Operand, bytes: number): void {
  emitRun(f, bytes, (offset, size) => {
    if (size === 16) f.store(offset(to), 0, f.constant(0));
    else f.storeInteger(offset(to), 0, 0);
  });
}

/** Copies numbers. */
export function emitCopy(f: Body, from: Operand, to: Operand, bytes: number): void {
  emitRun(f, bytes, (offset, size) => {
    if (size === 16) f.store(offset(to), 0, load(offset(from)));
    else f.storeInteger(offset(to), 0, i32.load(offset(from)));
  });
}

/** Walks a constant number of bytes by vectors, then by words. */
function emitRun(
  f: Body,
  bytes: number,
  step: (offset: (address: Operand) => Operand, size: 16 | 4) => void,
): void {
  const whole = Math.floor(bytes / 16) * 16, at = f.local("i32");
  if (whole) {
    f.set(at, 0);
    f.loop(at, whole, 16, () => step((address) => add(address, at), 16));
  }
  for (let rest = whole; rest < bytes; rest += 4) step((address) => add(address, rest), 4);
}

/** A band's numbers as they are in an image. */
export const plainSource = ({ height, width, channels }: BandShape): BandSource => {
  const pixel = 4 * channels;
  return {
    expression: argument(0),
    strides: [[height * width * pixel, width * pixel, pixel]],
    repeat: [1, 1],
  };
};

/**
 * A band's numbers as a fused expression makes them, over images or over
 * `[image, row, repeat, column, repeat, channel]`.
 */
export const fusedSource = ({ domain, operands, expression }: Elementwise): BandSource => {
  const isRepeated = domain.length === 6, [row, column] = isRepeated ? [1, 3] : [1, 2];
  return {
    expression,
    strides: operands.map(({ strides }) => [4 * strides[0], 4 * strides[row], 4 * strides[column]]),
    repeat: isRepeated ? [domain[2], domain[4]] : [1, 1],
  };
};

/** What tells the code of a source from that of others. */
export const sourceKey = ({ expression, strides, repeat }: BandSource): unknown => [
  ...[expression.id, strides, repeat],
];

/** Whether the pixels of a row are in memory, one behind the other: not where one is repeated. */
export const isInMemory = (
  { expression, strides, repeat }: BandSource,
  channels: number,
): boolean =>
  expression === argument(0) && strides[0][2] === 4 * channels && repeat.every((n) => n === 1);

/**
 * Computes `count` pixels from operands that are all read along the channels.
 *
 * @param skipped Pixels that are left out of those that repeat the first one.
 */
function emitPixels(
  f: Body,
  { expression, strides, repeat: [, repeat] }: BandSource,
  channels: number,
  count: number,
  skipped: number,
  from: readonly Local[],
  to: Operand,
): void {
  const target = f.integer(to), at = from.map((address) => f.integer(address));
  const channel = f.local("i32"), vectors = channels % 8 ? 1 : 2, pixel = 4 * channels;
  const pixels = (count: number, copies: number) => {
    if (!count || !copies) return;
    f.repeat(count, () => {
      f.set(channel, 0);
      f.loop(channel, pixel, 16 * vectors, () => {
        const here = at.map((address) => f.integer(add(address, channel)));
        const out = f.integer(add(target, channel));
        const values = Array.from({ length: vectors }, (_, v) => {
          const loaded = here.map((address) => f.vector(load(address, 16 * v)));
          return emitExpressions(f, [expression], (i) => loaded[i])[0];
        });
        for (let copy = 0; copy < copies; copy++) {
          values.forEach((value, v) => f.store(out, copy * pixel + 16 * v, value));
        }
      });
      f.increase(target, copies * pixel);
      strides.forEach(([, , column], k) => {
        if (column) f.increase(at[k], column);
      });
    });
  };
  const first = Math.min(count, (repeat - skipped) % repeat), rest = count - first;
  pixels(1, first);
  pixels(Math.floor(rest / repeat), repeat);
  pixels(1, rest % repeat);
}

/**
 * Fills a band of `rows` rows.
 *
 * @param images For each operand of the source, the address of the image.
 * @param first The row of the image that the first row of the band shows; a negative one,
 * as an unsigned number, is beyond its end.
 */
export function emitBand(
  f: Body,
  shape: BandShape,
  source: BandSource,
  images: readonly Operand[],
  first: Operand,
  rows: Operand,
  band: Operand,
): void {
  const { height, width, channels, left, columns } = shape, pixel = 4 * channels;
  // The columns of the image that the band shows, and those of zeros before them.
  const from = Math.max(0, -left), shown = Math.max(0, Math.min(width, columns - left) - from);
  const before = Math.min(columns, Math.max(0, left));
  const isPlain = isInMemory(source, channels), [rowRepeat, columnRepeat] = source.repeat;
  const row = f.integer(first), target = f.integer(band);
  const at = images.map(() => f.local("i32"));
  f.repeat(rows, () => {
    f.if(i32.lt(row, height), () => {
      const shownRow = rowRepeat === 1 ? row : f.integer(div(row, rowRepeat));
      images.forEach((image, k) => f.set(at[k], add(image, mul(shownRow, source.strides[k][1]))));
      emitZeros(f, target, before * pixel);
      const start = add(target, before * pixel);
      if (isPlain) emitCopy(f, add(at[0], from * pixel), start, shown * pixel);
      else if (shown) {
        const column = Math.floor(from / columnRepeat), skipped = from % columnRepeat;
        at.forEach((address, k) => f.increase(address, column * source.strides[k][2]));
        emitPixels(f, source, channels, shown, skipped, at, start);
      }
      emitZeros(f, add(target, (before + shown) * pixel), (columns - before - shown) * pixel);
    }, () => emitZeros(f, target, columns * pixel));
    f.increase(target, columns * pixel);
    f.increase(row, 1);
  });
}
