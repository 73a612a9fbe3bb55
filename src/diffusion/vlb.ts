/**
 * The variational bound on the negative log-likelihood of images, term by term (Ho et al. 2020,
 * equation 5): the Kullback-Leibler divergence of each reverse step from the forward posterior, the
 * code length of the last step, and that of the noise. Variances may be learnt (Nichol and Dhariwal
 * 2021, equation 15). Training minimises it and evaluation sums it, in bits a value.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map } from "../gpu/ops/map.ts";
import { reshape, slice } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { meanPerItem, perItem } from "./items.ts";
import type { NoiseSchedule } from "./schedule.ts";

/** What a network made of noisy images. */
export interface Reconstruction {
  /** x_0, `[batch, height, width, channels]`; bytes as multiples of 1/127.5 from -1 to 1. */
  readonly images: Tensor;
  /** `i32` `[batch]` in [0, T). */
  readonly timesteps: Tensor;
  /** The estimate of x_0 less x_0, of the same shape. */
  readonly error: Tensor;
  /** Where between log β̃ (-1) and log β (1) the log-variance is, if it is learnt. */
  readonly variance?: Tensor;
}

/** Half the distance of two bytes, and where the first and the last of them begin to be alone. */
const HALF_BIN = 1 / 255, EDGE = 0.999;
/** Probabilities of bytes are not taken for less. */
const LEAST = 1e-12;

/** What the terms need to know of every timestep. */
function makeTable({ betas, config: { varianceType } }: NoiseSchedule): number[][] {
  let bar = 1;
  const bars = Array.from(betas, (beta) => bar *= 1 - beta);
  const posterior = Array.from(
    betas,
    (beta, t) => t ? beta * (1 - bars[t - 1]) / (1 - bars[t]) : 0,
  );
  return Array.from(betas, (beta, t) => {
    // The first posterior is no distribution: x_0 is what it is.
    const variance = posterior[Math.max(t, 1)] ?? beta;
    const range = Math.log(beta / variance);
    const ratio = varianceType.startsWith("fixed_large") && t ? range : 0;
    const share = t ? Math.sqrt(bars[t - 1]) * beta / (1 - bars[t]) : 1;
    return [
      share ** 2 / variance,
      range,
      ratio,
      ratio + Math.exp(-ratio) - 1,
      1 / Math.sqrt(variance),
    ];
  });
}

/**
 * The term of a timestep for each image, `[batch]`, in bits a value: the divergence of
 * p(x_{t-1} | x_t) from q(x_{t-1} | x_t, x_0), or for t = 0 the code length of the bytes under a
 * normal distribution that is integrated over each byte's bin.
 */
export function boundTerms(
  schedule: NoiseSchedule,
  { images, timesteps, error, variance }: Reconstruction,
): Tensor {
  const rows = makeTable(schedule), batch = images.shape[0], rank = images.shape.length - 1;
  const row = gather(constant(rows.flat(), [rows.length, rows[0].length]), timesteps);
  const [weight, range, fixedRatio, fixedOffset, inverse] = rows[0].map((_, i) =>
    perItem(reshape(slice(row, 1, i, 1), [batch]), rank)
  );
  const t = perItem(timesteps, rank);
  const ratio = variance
    ? map([variance, range], (v, range) => e.mul(e.mul(0.5, e.add(v, 1)), range))
    : fixedRatio;
  const offset = variance ? map([ratio], (r) => e.sub(e.add(r, e.exp(e.neg(r))), 1)) : fixedOffset;
  const values = map(
    [images, error, t, ratio, offset, weight, inverse],
    (x, error, t, ratio, offset, weight, inverse) => {
      const squares = e.mul(e.mul(weight, e.exp(e.neg(ratio))), e.mul(error, error));
      const divergence = e.mul(0.5, e.add(offset, squares));
      const isLast = e.less(t, 1), scale = e.mul(inverse, e.exp(e.mul(-0.5, ratio)));
      // Later errors are large where nobody looks, and would overflow.
      const code = codeLength(x, e.mul(isLast, error), scale);
      return e.div(e.select(isLast, code, divergence), Math.LN2);
    },
  );
  return meanPerItem(values);
}

/** The code length of the byte at x, in nats, for a normal at x + error with deviation 1 / scale. */
function codeLength(x: e.Expression, error: e.Expression, scale: e.Expression): e.Expression {
  const below = (offset: number) => {
    const z = e.mul(scale, e.sub(offset, error));
    return e.mul(0.5, e.add(1, e.erf(e.mul(Math.SQRT1_2, z))));
  };
  const upper = e.select(e.less(EDGE, x), 1, below(HALF_BIN));
  const lower = e.select(e.less(x, -EDGE), 0, below(-HALF_BIN));
  return e.neg(e.log(e.max(e.sub(upper, lower), LEAST)));
}

/**
 * The code length of x_T, in bits a value: the divergence of q(x_T | x_0) from a standard normal.
 *
 * @param images Values in [-1, 1].
 */
export function priorTerm({ betas }: NoiseSchedule, images: Float32Array): number {
  const bar = betas.reduce((product, beta) => product * (1 - beta), 1);
  const square = images.reduce((sum, x) => sum + x * x, 0) / images.length;
  return (bar * square - bar - Math.log1p(-bar)) / 2 / Math.LN2;
}
