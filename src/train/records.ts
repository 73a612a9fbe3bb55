/**
 * How steps of a training went, which they leave in a row each of a history on the device.
 *
 * @module
 */

import { isExhausted, isOverflow } from "./loss_scale.ts";
import type { TrainableNetwork } from "../model/network.ts";
import { HISTORY, RANGES, rowSize } from "./step.ts";

/** How a step went. */
export interface StepRecord {
  /** From 1. */
  readonly step: number;
  /** What the objective says, mean over the batch. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradientNorm: number;
  /**
   * The images by quarters of the timesteps, the least noisy ones first; none of networks that see no
   * noise.
   */
  readonly quartiles: readonly Quartile[];
  /** Of autoencoders: the mean absolute difference of pictures to what became of them. */
  readonly reconstruction?: number;
  /** Of autoencoders: the divergence of a picture from standard normals, or the loss of the codebook. */
  readonly penalty?: number;
  /** Of dual encoders: the share of images whose own text was the nearest of all of the batch. */
  readonly accuracy?: number;
  /** What the loss was multiplied by for gradients in `f16`; 1 in `f32`. */
  readonly lossScale: number;
  /** Whether gradients in `f16` overflowed, so that nothing was learnt of it. */
  readonly isSkipped: boolean;
}

/** Images of a step whose timesteps are in one quarter of all. */
export interface Quartile {
  /** How many. */
  readonly count: number;
  /** Sum of their losses. */
  readonly sum: number;
  /** How many of them a classifier had right. */
  readonly correct?: number;
}

/**
 * How the last steps went.
 *
 * @param history Of the last {@linkcode HISTORY} steps.
 * @param network What is trained.
 * @param done How many steps are done.
 * @param count How many are asked for.
 */
export function readRecords(
  history: Float32Array | Int32Array,
  network: Pick<TrainableNetwork, "kind">,
  done: number,
  count: number,
): StepRecord[] {
  // Behind what is known of all is the scale of the loss, where there is one.
  const width = history.length / HISTORY, end = rowSize(network), { kind } = network;
  const hasRanges = kind === "denoiser" || kind === "classifier";
  const first = Math.max(0, done - Math.min(count, HISTORY));
  return Array.from({ length: done - first }, (_, i) => {
    const step = first + i, row = history.subarray(width * (step % HISTORY));
    const [loss, gradientNorm] = row, lossScale = width > end ? row[end] : 1;
    const quartiles = Array.from({ length: hasRanges ? RANGES : 0 }, (_, q) => {
      const [sum, count, correct] = [0, 1, 2].map((i) => row[2 + i * RANGES + q]);
      return { sum, count, ...(kind === "classifier" ? { correct } : {}) };
    });
    return {
      ...{ step: step + 1, loss, gradientNorm, quartiles, lossScale },
      ...(kind === "autoencoder" ? { reconstruction: row[2], penalty: row[3] } : {}),
      ...(kind === "dual encoder" ? { accuracy: row[2] } : {}),
      isSkipped: width > end && isOverflow(gradientNorm * lossScale),
    };
  });
}

/** A loss that has grown by this factor since the first steps is not going to recover. */
const EXPLOSION = 100;

/**
 * Finds the step at which a training diverged, in words; `undefined` if none did.
 *
 * @param first The loss of the first steps, if it is known.
 */
export function describeDivergence(
  records: readonly StepRecord[],
  first: number | undefined,
): string | undefined {
  const isGood = ({ loss, gradientNorm, isSkipped, lossScale }: StepRecord) =>
    isSkipped ? !isExhausted(lossScale) : Number.isFinite(loss) && Number.isFinite(gradientNorm) &&
      !(first !== undefined && loss > EXPLOSION * first);
  const bad = records.find((record) => !isGood(record));
  if (!bad) return undefined;
  const what = `The loss is ${format(bad.loss)} at step ${bad.step}, with a gradient of norm ` +
    format(bad.gradientNorm);
  return first === undefined ? what : `${what}, up from ${format(first)} at first`;
}

const format = (x: number) => Number.isFinite(x) ? String(Number(x.toPrecision(4))) : String(x);
