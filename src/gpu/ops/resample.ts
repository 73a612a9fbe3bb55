/**
 * Changes of resolution by whole factors: {@linkcode upsampleNearest} and {@linkcode averagePool}.
 *
 * @module
 */

import type { Tensor } from "../tensor.ts";
import { mul } from "./map.ts";
import { sum } from "./sum.ts";
import { broadcastTo, reshape } from "./view.ts";

/** Every pixel of `[batch, height, width, channels]` as a square of `factor` × `factor`. */
export function upsampleNearest(x: Tensor, factor = 2): Tensor {
  const [n, h, w, c] = x.shape, f = factor;
  const repeated = broadcastTo(reshape(x, [n, h, 1, w, 1, c]), [n, h, f, w, f, c]);
  return reshape(repeated, [n, f * h, f * w, c]);
}

/**
 * Means of squares of `factor` × `factor` pixels; height and width must be multiples of it.
 *
 * @throws {RangeError} If they are not.
 */
export function averagePool(x: Tensor, factor = 2): Tensor {
  const [n, h, w, c] = x.shape, f = factor;
  const squares = reshape(x, [n, h / f, f, w / f, f, c]);
  return reshape(mul(sum(squares, [2, 4]), 1 / f ** 2), [n, h / f, w / f, c]);
}
