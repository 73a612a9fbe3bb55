/**
 * How training draws noise levels, on the device and as a function of seed and step.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { concat } from "../gpu/ops/concat.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, map } from "../gpu/ops/map.ts";
import { matmul } from "../gpu/ops/matmul.ts";
import { randomInteger, randomNormal, type RandomState, randomUniform } from "../gpu/ops/random.ts";
import { mean, sum } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import { NoiseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";

/**
 * How noise levels are drawn. `uniform`; `antithetic`: t for one half of a batch and T - 1 - t for the
 * other (Song et al. 2021); `loss_second_moment`: those more often whose losses are larger, which
 * then count less (Nichol and Dhariwal 2021, equation 18); `log_normal`: by a normal distribution of
 * log σ, σ in units of the image (Karras et al. 2022), rounded to timesteps but for networks that
 * predict as `edm`.
 */
export type TimestepSampling = "uniform" | "antithetic" | "loss_second_moment" | "log_normal";

/** The drawing of noise levels among the settings of a training. */
export interface TimestepConfig {
  /** How they are drawn. @default {"uniform"} */
  readonly timestepSampling: TimestepSampling;
  /** Mean of log σ for `log_normal`; -1.2 if `null`. @default {null} */
  readonly logSigmaMean: number | null;
  /** Standard deviation of log σ for `log_normal`; 1.2 if `null`. @default {null} */
  readonly logSigmaStd: number | null;
}

/** Noise levels of a batch. */
export interface Draw {
  /** `i32` `[batch]` in [0, T). */
  readonly timesteps: Tensor;
  /** σ / α where that is not the timesteps', `[batch]`. */
  readonly sigmas?: Tensor;
  /** How much each image's loss counts, `[batch]`; by default 1. */
  readonly importance?: Tensor;
  /** What learns from the losses `[batch]`: a state and its next value. */
  readonly observe?: (losses: Tensor) => readonly [state: Tensor, value: Tensor];
}

/** The stream of random numbers that they are drawn from. */
const STREAM = 11;
/** Losses that `loss_second_moment` remembers of each timestep, as their squares. */
export const REMEMBERED = 10;
/** The share of draws that pays no heed to losses. */
const UNIFORM_SHARE = 0.001;

/** Draws the noise levels of a batch. */
export function drawTimesteps(
  { timestepSampling, logSigmaMean, logSigmaStd }: TimestepConfig,
  schedule: ScheduleConfig,
  batch: number,
  random: RandomState,
): Draw {
  const tables = new NoiseSchedule(schedule), steps = tables.betas.length;
  switch (timestepSampling) {
    case "uniform":
      return { timesteps: randomInteger(steps, [batch], random, STREAM) };
    case "antithetic": {
      const half = Math.ceil(batch / 2), places = Array.from({ length: batch }, (_, i) => i);
      const drawn = randomInteger(steps, [half], random, STREAM);
      const column = reshape(map([drawn], (t) => t), [half, 1]);
      const paired = gather(column, constant(Int32Array.from(places, (i) => i % half)));
      const isMirrored = constant(places.map((i) => i < half ? 0 : 1));
      return {
        timesteps: map(
          [reshape(paired, [batch]), isMirrored],
          (t, mirrored) => e.select(mirrored, e.sub(steps - 1, t), t),
          "i32",
        ),
      };
    }
    case "log_normal": {
      const normal = randomNormal([batch], random, STREAM);
      const logs = map([normal], (z) => e.add(e.mul(z, logSigmaStd ?? 1.2), logSigmaMean ?? -1.2));
      const known = Array.from(tables.sigmas, Math.log).filter(Number.isFinite);
      const middles = known.slice(1).map((log, i) => (log + known[i]) / 2);
      const timesteps = countBelow(constant(middles.length ? middles : [Infinity]), logs);
      if (schedule.predictionType !== "edm") return { timesteps };
      return { timesteps, sigmas: map([logs], e.exp) };
    }
    case "loss_second_moment":
      return drawByLoss(steps, batch, random);
  }
}

/** Numbers of the ascending thresholds that are below each value, `i32`. */
function countBelow(thresholds: Tensor, values: Tensor): Tensor {
  const [n] = values.shape,
    pairs = [reshape(thresholds, [1, thresholds.shape[0]]), reshape(values, [n, 1])];
  const below = map(pairs, e.less);
  return map([reshape(sum(below, [1]), [n])], (x) => x, "i32");
}

/** Importance sampling by the root of each timestep's mean squared loss. */
function drawByLoss(steps: number, batch: number, random: RandomState): Draw {
  const state = input("squaredLosses", [steps, REMEMBERED]);
  const oldest = slice(state, 1, REMEMBERED - 1, 1), roots = map([mean(state, [1])], e.sqrt);
  // Until all timesteps have been drawn often enough, nothing is preferred.
  const seen = sum(map([oldest], (x) => e.less(0, x)));
  const shares = map([roots, sum(roots), seen], (root, all, seen) => {
    const share = e.add(e.mul(1 - UNIFORM_SHARE, e.div(root, all)), UNIFORM_SHARE / steps);
    return e.select(e.less(seen, steps - 0.5), 1 / steps, share);
  });
  const thresholds = steps > 1 ? slice(cumulate(shares), 0, 0, steps - 1) : constant([1]);
  const timesteps = countBelow(thresholds, randomUniform([batch], random, STREAM));
  const share = reshape(gather(shares, timesteps), [batch]);
  return {
    timesteps,
    importance: map([share], (share) => e.div(1 / steps, share)),
    observe(losses) {
      const rows = constant(Array.from({ length: steps }, (_, t) => t), [steps, 1]);
      const columns = [timesteps, losses].map((x) => reshape(x, [1, batch]));
      const isDrawn = map([rows, columns[0]], (t, drawn) => {
        return e.mul(e.less(t, e.add(drawn, 0.5)), e.less(e.sub(drawn, 0.5), t));
      });
      const count = sum(isDrawn, [1]);
      // Images of one timestep in a batch are remembered as one.
      const squares = map([isDrawn, columns[1]], (is, loss) => e.mul(is, e.mul(loss, loss)));
      const newest = map([sum(squares, [1]), count], (s, n) => e.div(s, e.max(n, 1)));
      const shifted = concat([newest, slice(state, 1, 0, REMEMBERED - 1)], 1);
      return [
        state,
        map([count, shifted, state], (n, after, before) => e.select(n, after, before)),
      ];
    },
  };
}

/** Sums of the elements of a column up to each, `[n]`, by way of a square. */
function cumulate(column: Tensor): Tensor {
  const [n] = column.shape, side = Math.ceil(Math.sqrt(n)), rest = side ** 2 - n;
  const padded = rest ? concat([column, broadcastTo(constant([0]), [rest, 1])], 0) : column;
  const triangle = (f: (i: number, j: number) => boolean) =>
    constant(
      Array.from({ length: side ** 2 }, (_, k) => f(Math.floor(k / side), k % side) ? 1 : 0),
      [side, side],
    );
  const within = matmul(reshape(padded, [side, side]), triangle((i, j) => i <= j));
  const before = matmul(triangle((i, j) => j < i), slice(within, 1, side - 1, 1));
  return slice(reshape(add(within, before), [side ** 2]), 0, 0, n);
}
