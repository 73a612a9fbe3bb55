/**
 * Changes of resolution by two: {@linkcode upsampleNearest} and {@linkcode averagePool}.
 *
 * @module
 */

import type { Tensor } from "../tensor.ts";
import { mul } from "./map.ts";
import { sum } from "./sum.ts";
import { broadcastTo, reshape } from "./view.ts";

/** Every pixel of `[batch, height, width, channels]` four times, as a 2 × 2 square. */
export function upsampleNearest(x: Tensor): Tensor {
  const [n, h, w, c] = x.shape;
  const repeated = broadcastTo(reshape(x, [n, h, 1, w, 1, c]), [n, h, 2, w, 2, c]);
  return reshape(repeated, [n, 2 * h, 2 * w, c]);
}

/**
 * Means of squares of 2 × 2 pixels; height and width must be even.
 *
 * @throws {RangeError} If they are not.
 */
export function averagePool(x: Tensor): Tensor {
  const [n, h, w, c] = x.shape;
  const squares = reshape(x, [n, h / 2, 2, w / 2, 2, c]);
  return reshape(mul(sum(squares, [2, 4]), 1 / 4), [n, h / 2, w / 2, c]);
}
