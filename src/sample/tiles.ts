/**
 * Tiles: pictures larger than a network was made for, as parts that overlap.
 *
 * Everything is in cells, the pixels of the picture of low resolution. Where two tiles overlap, one
 * fades in and the other out; what lies next to the edge of a tile, which saw the least of its
 * surroundings, counts for nothing.
 *
 * @module
 */

/** The share of a tile that it has in common with the next one, at least. */
const OVERLAP = 3 / 8;
/** The share of what two tiles have in common that fades; the rest, at both ends, is of one of them. */
const FADING = 3 / 4;

/** The tiles along one side of a picture. */
export interface Axis {
  /** Cells of a tile. */
  readonly length: number;
  /** Cells of the picture. */
  readonly size: number;
  /** The first cell of each tile. */
  readonly starts: readonly number[];
  /** How much each pixel of each tile counts; those of all tiles at a place add up to 1. */
  readonly weights: readonly Float32Array[];
}

/**
 * Tiles that cover a side; the last one ends where the picture does.
 *
 * @param size Cells of the picture.
 * @param length Cells of a tile; a shorter picture has one tile all the same.
 * @param factor Pixels of a cell.
 */
export function layTiles(size: number, length: number, factor: number): Axis {
  const room = Math.max(0, size - length);
  const step = Math.max(1, Math.floor(length * (1 - OVERLAP)));
  const gaps = Math.ceil(room / step);
  const starts = Array.from(
    { length: gaps + 1 },
    (_, i) => gaps ? Math.round(i * room / gaps) : 0,
  );
  const total = new Float64Array(factor * Math.max(size, length));
  const raw = starts.map((start, i) => {
    const before = i ? starts[i - 1] + length - start : 0;
    const after = i < gaps ? start + length - starts[i + 1] : 0;
    return Float64Array.from({ length: factor * length }, (_, pixel) => {
      const from = (pixel + 0.5) / factor, weight = fade(from, before) * fade(length - from, after);
      total[factor * start + pixel] += weight;
      return weight;
    });
  });
  const weights = raw.map((row, i) =>
    Float32Array.from(row, (weight, pixel) => weight / total[factor * starts[i] + pixel])
  );
  return { length, size, starts, weights };
}

/** The share of a tile that the next one fades in over. */
const BLEND = 1 / 4;

/**
 * Tiles that follow each other at three quarters of their length, the last one ending where the side
 * does. Each fades in over its first quarter, linearly from nothing at its first pixel on, and covers
 * what came before, as in the tiled decoding of diffusers.
 *
 * @param size Cells of the side.
 * @param length Cells of a tile, at most `size`.
 * @param factor Pixels of a cell.
 */
export function layBlended(size: number, length: number, factor: number): Axis {
  const step = Math.max(1, Math.floor(length * (1 - BLEND))), fading = factor * (length - step);
  const starts = [0];
  for (let start = step; starts.at(-1)! + length < size; start += step) {
    starts.push(Math.min(start, size - length));
  }
  const weights: Float32Array[] = [];
  starts.forEach((start, i) => {
    const own = Float32Array.from(
      { length: factor * length },
      (_, pixel) => i && pixel < fading ? pixel / fading : 1,
    );
    weights.forEach((before, j) => {
      const shift = factor * (start - starts[j]);
      own.forEach((share, pixel) => {
        if (shift + pixel < before.length) before[shift + pixel] *= 1 - share;
      });
    });
    weights.push(own);
  });
  return { length, size, starts, weights };
}

/** From 0 to 1 along half a wave, in the middle of `overlap` cells from the edge on. */
function fade(distance: number, overlap: number): number {
  if (!overlap) return 1;
  const share = (distance / overlap - (1 - FADING) / 2) / FADING;
  // What nobody else covers must count, and be it for little.
  return Math.max(1e-6, (1 - Math.cos(Math.PI * Math.min(1, Math.max(0, share)))) / 2);
}

/** Cells of `[height, width, channels]` from a corner on; edges are repeated. */
export function cutTile(
  { data, height, width, channels }: {
    readonly data: Float32Array;
    readonly height: number;
    readonly width: number;
    readonly channels: number;
  },
  top: number,
  left: number,
  rows: number,
  columns: number,
  out: Float32Array,
  offset: number,
): void {
  for (let y = 0, to = offset; y < rows; y++) {
    const row = Math.min(height - 1, top + y) * width;
    for (let x = 0; x < columns; x++) {
      const from = (row + Math.min(width - 1, left + x)) * channels;
      for (let c = 0; c < channels; c++) out[to++] = data[from + c];
    }
  }
}

/**
 * Moves the pixels of every cell by the same amount, so that within [-1, 1] their mean is what the cell
 * says: of all pictures that do agree it is the nearest.
 *
 * @param rows Rows of pixels `[factor · cells, width, channels]`, which are changed.
 * @param low Their cells, in [-1, 1].
 */
export function agree(
  rows: Float32Array,
  low: Float32Array,
  width: number,
  channels: number,
  factor: number,
): void {
  const stride = width * channels, each = factor ** 2, across = width / factor;
  const values = new Float64Array(each);
  for (let cell = 0; cell < low.length; cell++) {
    const c = cell % channels, x = Math.floor(cell / channels) % across;
    const y = Math.floor(cell / channels / across);
    const place = (k: number) =>
      (y * factor + Math.floor(k / factor)) * stride + (x * factor + k % factor) * channels + c;
    for (let k = 0; k < each; k++) values[k] = rows[place(k)];
    const shift = shiftTo(values, low[cell]);
    for (let k = 0; k < each; k++) rows[place(k)] = limit(values[k] + shift);
  }
}

const limit = (x: number) => Math.max(-1, Math.min(1, x));

/** Halvings that an interval is known to 32 bits after. */
const HALVINGS = 32;

/** What is to be added to values so that, limited to [-1, 1], they have a mean. */
function shiftTo(values: Float64Array, mean: number): number {
  const shift = mean - values.reduce((sum, x) => sum + x, 0) / values.length;
  const most = values.reduce((a, b) => Math.max(a, b)),
    least = values.reduce((a, b) => Math.min(a, b));
  if (most + shift <= 1 && least + shift >= -1) return shift;
  // All are at the lower end with the one, and at the upper end with the other.
  let low = -1 - most, high = 1 - least;
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (low + high) / 2;
    const reached = values.reduce((sum, x) => sum + limit(x + middle), 0) / values.length;
    if (reached < mean) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
