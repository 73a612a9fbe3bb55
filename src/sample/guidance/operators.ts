/**
 * What pictures go through before they are to be restored, as linear functions of tensors.
 *
 * @module
 */

import type { Conditions, Query } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import { map, mul } from "../../gpu/ops/map.ts";
import { linear } from "../../gpu/ops/matmul.ts";
import { averagePool, upsampleNearest } from "../../gpu/ops/resample.ts";
import { mean } from "../../gpu/ops/sum.ts";
import { broadcastTo, permute } from "../../gpu/ops/view.ts";
import { constant, type Tensor } from "../../gpu/tensor.ts";
import * as e from "../../gpu/expression.ts";
import type { Shape } from "../../shape.ts";

/**
 * A linear function A of items, of which a measurement y = A x is known.
 *
 * @example Every other row is lost
 * ```ts
 * import type { LinearOperator } from "@x/ddpm";
 * import { constant, mul } from "@x/ddpm/tensor";
 *
 * const rows = constant(Array.from({ length: 28 }, (_, y) => y % 2), [28, 1, 1]);
 * const interlaced: LinearOperator = {
 *   norm: 1,
 *   measured: (item) => item,
 *   apply: (x) => mul(x, rows),
 *   pinv: (y) => mul(y, rows),
 * };
 * console.log(interlaced.measured([28, 28, 1])); // [28, 28, 1]
 * ```
 */
export interface LinearOperator {
  /**
   * The shape of a measurement of an item.
   *
   * @throws {InputError} If there is none of such items.
   */
  measured(item: Shape): Shape;
  /** The largest singular value. */
  readonly norm: number;
  /** What differs from item to item, such as a mask. */
  conditions?(item: Shape): Conditions;
  /** A x of items `[batch, ...item]`. */
  apply(x: Tensor, values: Query["conditions"]): Tensor;
  /** Its pseudoinverse: the item of least norm with a measurement, A A⁺ A = A; or nearly so. */
  pinv(y: Tensor, values: Query["conditions"]): Tensor;
}

/** Height, width and channels. */
function sidesOf(item: Shape): Shape {
  if (item.length === 3) return item;
  throw new InputError(`Cannot restore items of shape ${item.join("x")}: they are no pictures`);
}

/** Means of squares of `factor` by `factor` pixels. */
function superres(factor: number): LinearOperator {
  return {
    norm: 1 / factor,
    measured(item) {
      const [height, width, channels] = sidesOf(item);
      if (height % factor === 0 && width % factor === 0) {
        return [height / factor, width / factor, channels];
      }
      throw new InputError(
        `Cannot restore pictures of ${width}x${height} from ones ${factor} times as small: sides ` +
          `must be multiples of ${factor}`,
      );
    },
    apply: (x) => averagePool(x, factor),
    pinv: (y) => upsampleNearest(y, factor),
  };
}

/** Pictures without the pixels at which the condition `mask` `[height, width, 1]` is 1. */
function inpaint(): LinearOperator {
  const keep = (x: Tensor, { mask }: Query["conditions"]) =>
    map([x, mask], (x, m) => e.mul(x, e.sub(1, m)));
  return {
    norm: 1,
    measured: sidesOf,
    conditions(item) {
      const [height, width] = sidesOf(item);
      return { mask: { shape: [height, width, 1], dtype: "f32" } };
    },
    apply: keep,
    pinv: keep,
  };
}

/** Means of the channels. */
function colorize(): LinearOperator {
  return {
    norm: 1 / Math.sqrt(COLORS),
    measured(item) {
      const [height, width, channels] = sidesOf(item);
      if (channels > 1) return [height, width, 1];
      throw new InputError("Cannot colorize: the model's pictures are grey");
    },
    apply: (x) => mean(x, [3]),
    // Colors of the same mean, of which grey is the least.
    pinv: (y) => broadcastTo(y, [...y.shape.slice(0, 3), COLORS]),
  };
}

/** Channels of pictures in color. */
const COLORS = 3;

/** Noise in the measurement, over the image's at that frequency: less than this cannot be undone. */
const LEAST_SHARE = 0.02;

/**
 * Convolution with a Gaussian bell whose standard deviation is `sigma` pixels, the picture mirrored
 * at its edges. A discrete cosine transform makes products of it, which are inverted one by one.
 */
function deblur(sigma: number): LinearOperator {
  const filter = (response: (share: number) => number) => (x: Tensor): Tensor => {
    const [, height, width] = x.shape, [rows, columns] = [height, width].map(cosines);
    const shares = [height, width].map((n) => bellShares(n, sigma));
    const gains = shares[0].flatMap((a) => shares[1].map((b) => response(a * b)));
    const there = transform(x, rows, columns);
    const filtered = mul(there, constant(gains, [height, width, 1]));
    return transform(filtered, ...[rows, columns].map(transposed) as [number[][], number[][]]);
  };
  return {
    norm: 1,
    measured: sidesOf,
    apply: filter((share) => share),
    pinv: filter((share) => share / (share ** 2 + LEAST_SHARE ** 2)),
  };
}

/** The orthonormal cosine transform of n values (DCT-II), a row for each frequency. */
const cosines = (n: number): number[][] =>
  Array.from(
    { length: n },
    (_, k) =>
      Array.from(
        { length: n },
        (_, i) => Math.sqrt((k ? 2 : 1) / n) * Math.cos(Math.PI * k * (i + 0.5) / n),
      ),
  );

/** What is left of each frequency of n values once they are blurred. */
function bellShares(n: number, sigma: number): number[] {
  const reach = Math.ceil(4 * sigma),
    taps = Array.from(
      { length: 2 * reach + 1 },
      (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)),
    );
  const total = taps.reduce((a, b) => a + b);
  return Array.from(
    { length: n },
    (_, k) =>
      taps.reduce((sum, w, i) => sum + w * Math.cos(Math.PI * k * (i - reach) / n), 0) / total,
  );
}

const transposed = (m: number[][]): number[][] => m[0].map((_, j) => m.map((row) => row[j]));

/** The rows and columns of pictures multiplied by matrices. */
function transform(x: Tensor, rows: number[][], columns: number[][]): Tensor {
  const matrix = (m: number[][]) => constant(m.flat(), [m.length, m[0].length]);
  const across = linear(permute(x, [0, 3, 1, 2]), matrix(columns));
  const down = linear(permute(across, [0, 1, 3, 2]), matrix(rows));
  return permute(down, [0, 3, 2, 1]);
}

/**
 * The operators that restorations know.
 *
 * @example
 * ```ts
 * import { operators } from "@x/ddpm";
 *
 * console.log(operators.superres(4).measured([28, 28, 1])); // [7, 7, 1]
 * ```
 */
export const operators = { superres, inpaint, deblur, colorize } as const;
