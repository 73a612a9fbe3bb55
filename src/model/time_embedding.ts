/**
 * Timesteps as vectors.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { concat } from "../gpu/ops/concat.ts";
import { cos, log, map, mul, sin } from "../gpu/ops/map.ts";
import { broadcastTo, reshape } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";

/**
 * Sinusoids of geometrically falling frequencies (Vaswani et al. 2017): with half = size / 2,
 * sin and cos of t · 10000^(-k / (half - shift)) for k in [0, half).
 *
 * @param t `f32` `[batch]`
 * @param isCosineFirst Cosines then sines, instead of sines then cosines.
 * @returns `[batch, size]`; an odd size gets a zero at the end.
 */
export function sinusoidalEmbedding(
  t: Tensor,
  size: number,
  shift: number,
  isCosineFirst: boolean,
): Tensor {
  const half = Math.floor(size / 2), batch = t.shape[0];
  // Rounded step by step as PyTorch does: at t = 1000 the last bit of a frequency turns an angle by
  // 6e-5, which is a hundred times all other rounding in the network.
  const round = Math.fround, slope = round(-Math.log(10000));
  const frequencies = Array.from(
    { length: half },
    (_, k) => round(Math.exp(round(round(slope * k) / (half - shift)))),
  );
  const angles = mul(reshape(t, [batch, 1]), constant(frequencies));
  const parts = isCosineFirst ? [cos(angles), sin(angles)] : [sin(angles), cos(angles)];
  if (size % 2) parts.push(broadcastTo(constant([0]), [batch, 1]));
  return concat(parts, 1);
}

/**
 * Random Fourier features of the logarithm (Song et al. 2021): sin and cos of 2π ln(t) w.
 *
 * @param t `f32` `[batch]`, positive.
 * @param frequencies `[half]`, fixed when the network was made.
 * @returns `[batch, 2 · half]`
 */
export function fourierEmbedding(t: Tensor, frequencies: Tensor): Tensor {
  const angles = map(
    [reshape(log(t), [t.shape[0], 1]), frequencies],
    (t, w) => e.mul(e.mul(t, w), 2 * Math.PI),
  );
  return concat([sin(angles), cos(angles)], 1);
}
