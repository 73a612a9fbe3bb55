/**
 * Group normalisation (Wu and He 2018), {@linkcode groupNorm}, of channels-last tensors.
 *
 * What varies by image and channel only is a `[batch, 2, 1, channels]` tensor of moments; the rest is
 * elementwise and fuses with its neighbours.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Op } from "../op.ts";
import { formatShape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { moments, momentsOp, type NormAttributes, sizes } from "./group_moments.ts";
import { groupNormGradOp, groupNormGradOps } from "./group_norm_grad.ts";
import { map } from "./map.ts";

const groupNormOp: Op<NormAttributes> = {
  name: "group_norm",
  infer([x, scale, shift], { groups }) {
    const channels = x.shape.at(-1)!;
    if (x.shape.length < 3 || channels % groups) {
      throw new RangeError(
        `Cannot normalise ${channels} channels of ${formatShape(x.shape)} in ${groups} groups`,
      );
    }
    if ([scale, shift].some(({ shape }) => shape.length !== 1 || shape[0] !== channels)) {
      throw new RangeError(`Cannot normalise: scale and shift must be of shape [${channels}]`);
    }
    return { shape: x.shape };
  },
  reference({ inputs: [node], attributes: { groups, eps } }, [x, scale, shift], out) {
    const { images, channels, pixels, each } = sizes(node, groups);
    for (let n = 0; n < images; n++) {
      for (let group = 0; group < groups; group++) {
        const first = n * pixels * channels + group * each;
        const visit = (f: (i: number, c: number) => void) => {
          for (let p = 0; p < pixels; p++) {
            for (let c = 0; c < each; c++) f(first + p * channels + c, group * each + c);
          }
        };
        let mean = 0, variance = 0;
        visit((i) => mean += x[i] / (pixels * each));
        visit((i) => variance += (x[i] - mean) ** 2 / (pixels * each));
        const rstd = 1 / Math.sqrt(variance + eps);
        visit((i, c) => out[i] = (x[i] - mean) * rstd * scale[c] + shift[c]);
      }
    }
  },
  expand({ inputs: [x, scale, shift], attributes }) {
    const { mean, rstd } = moments(x, attributes);
    return map(
      [x, mean, rstd, scale, shift],
      (x, mean, rstd, scale, shift) => e.add(e.mul(e.sub(x, mean), e.mul(rstd, scale)), shift),
    );
  },
  gradient: ({ inputs: [x, scale], attributes }, g, needed) =>
    needed.map((isNeeded, by) =>
      isNeeded ? apply(groupNormGradOp, [x, scale, g], { ...attributes, by }) : undefined
    ),
  cases: [
    {
      name: "fours",
      inputs: [{ shape: [2, 8, 8, 16] }, { shape: [16] }, { shape: [16] }],
      build: (x, scale, shift) => groupNorm(x, scale, shift, 4, 1e-5),
    },
    {
      name: "odd image, five channels",
      inputs: [{ shape: [3, 7, 13, 5], range: [9, 10] }, { shape: [5] }, { shape: [5] }],
      build: (x, scale, shift) => groupNorm(x, scale, shift, 5, 1e-5),
    },
    {
      name: "one group, batch 1",
      inputs: [{ shape: [1, 7, 13, 6] }, { shape: [6] }, { shape: [6] }],
      build: (x, scale, shift) => groupNorm(x, scale, shift, 1, 1e-6),
    },
    {
      name: "nearly constant, where eps shows",
      inputs: [{ shape: [2, 4, 4, 4], range: [1, 1.1] }, { shape: [4] }, { shape: [4] }],
      build: (x, scale, shift) => groupNorm(x, scale, shift, 2, 1e-3),
    },
  ],
};

/**
 * Normalises groups of neighbouring channels over all pixels of an image to mean 0 and variance 1,
 * then scales and shifts each channel.
 *
 * @param x `[batch, ..., channels]`
 * @param scale `[channels]`
 * @param shift `[channels]`
 */
export function groupNorm(
  x: Tensor,
  scale: Tensor,
  shift: Tensor,
  groups: number,
  eps: number,
): Tensor {
  return apply(groupNormOp, [x, scale, shift], { groups, eps });
}

/** All operations of normalisation. */
export const groupNormOps: readonly Op[] = [groupNormOp, momentsOp, ...groupNormGradOps];
