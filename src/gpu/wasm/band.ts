/**
 * Bands: some rows of an image with zeros around them, copied to a thread's scratch memory, so that
 * the kernels of convolutions know no borders.
 *
 * @module
 */

import { add, type Body, div, i32, load, mul, type Operand, rem } from "./assembler.ts";

/** An image and the window of it that a band shows. */
export interface BandShape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** Columns of zeros on the left; negative where columns are left out. */
  readonly left: number;
  /** Columns of the band. */
  readonly columns: number;
  /** Pixels lie this far apart in the band, with zeros between them. */
  readonly dilation: number;
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

/**
 * Fills a band of `rows` rows.
 *
 * @param image The address of the image.
 * @param first The row of the dilated image that the first row of the band shows; a negative one,
 * as an unsigned number, is beyond its end.
 */
export function emitBand(
  f: Body,
  shape: BandShape,
  image: Operand,
  first: Operand,
  rows: Operand,
  band: Operand,
): void {
  const { height, width, channels, left, columns, dilation } = shape;
  const pixel = 4 * channels, extent = (width - 1) * dilation + 1;
  // The columns of the dilated image that the band shows.
  const from = Math.max(0, -left), to = Math.min(extent, columns - left);
  const row = f.integer(first), target = f.integer(band), source = f.local("i32");
  f.repeat(rows, () => {
    const isInside = dilation === 1
      ? i32.lt(row, height)
      : i32.and(i32.lt(row, (height - 1) * dilation + 1), i32.eqz(rem(row, dilation)));
    f.if(isInside, () => {
      const index = div(row, dilation);
      f.set(source, add(image, mul(index, width * pixel)));
      if (dilation === 1) {
        emitZeros(f, target, Math.max(0, left) * pixel);
        const start = (left + from) * pixel;
        emitCopy(f, add(source, from * pixel), add(target, start), (to - from) * pixel);
        emitZeros(f, add(target, (left + to) * pixel), (columns - left - to) * pixel);
      } else {
        emitZeros(f, target, columns * pixel);
        const skipped = Math.ceil(from / dilation);
        const shown = Math.floor((to - 1) / dilation) - skipped + 1;
        const at = f.integer(add(target, (left + skipped * dilation) * pixel));
        f.increase(source, skipped * pixel);
        if (shown > 0) {
          f.repeat(shown, () => {
            emitCopy(f, source, at, pixel);
            f.increase(source, pixel);
            f.increase(at, dilation * pixel);
          });
        }
      }
    }, () => emitZeros(f, target, columns * pixel));
    f.increase(target, columns * pixel);
    f.increase(row, 1);
  });
}
