/**
 * Changes of resolution: by whole factors, {@linkcode upsampleNearest} and {@linkcode averagePool}, and
 * to any size, {@linkcode resizeBilinear}.
 *
 * @module
 */

import { constant, type Tensor } from "../tensor.ts";
import { mul } from "./map.ts";
import { linear } from "./matmul.ts";
import { sum } from "./sum.ts";
import { broadcastTo, permute, reshape } from "./view.ts";

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

/**
 * The matrix `[to, from]` that interpolates linearly between neighbours along an axis.
 *
 * @param place Where element `i` of the result is among those that there are, whose places are whole; what
 * is beyond the first or last one is that one.
 */
export function interpolation(from: number, to: number, place: (i: number) => number): Tensor {
  const weights = new Float64Array(to * from), last = from - 1;
  for (let i = 0; i < to; i++) {
    const at = Math.min(Math.max(place(i), 0), last), first = Math.floor(at), share = at - first;
    weights[i * from + first] += 1 - share;
    weights[i * from + Math.min(first + 1, last)] += share;
  }
  return constant(weights, [to, from]);
}

/** Where pixels are whose centres are at half-integers: `align_corners=False` in PyTorch. */
export const atHalves = (from: number, to: number) => (i: number): number =>
  (i + 0.5) * from / to - 0.5;

/** Images in another size, linear between the centres of pixels, without antialiasing. */
export function resizeBilinear(x: Tensor, height: number, width: number): Tensor {
  const [, h, w] = x.shape;
  const wide = linear(permute(x, [0, 1, 3, 2]), interpolation(w, width, atHalves(w, width)));
  const tall = linear(permute(wide, [0, 3, 2, 1]), interpolation(h, height, atHalves(h, height)));
  return permute(tall, [0, 3, 1, 2]);
}
