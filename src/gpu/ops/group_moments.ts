/**
 * What group normalisation and its gradient know of each group, {@linkcode moments}.
 *
 * Moments are taken per channel first and then folded over groups; GPUs have a kernel that takes a
 * group at a time.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Access, Loop } from "../compile/loop.ts";
import type { Op } from "../op.ts";
import { denseStrides, sizeOf } from "../../shape.ts";
import { Scratch, type Storage } from "../storage.ts";
import { apply, type HostArray, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import { lowerMoments, type NormSizes } from "../wgsl/group_norm.ts";
import { slice, withoutWaiting } from "./view.ts";

export interface NormAttributes {
  readonly groups: number;
  readonly eps: number;
}

/** Sizes of a channels-last tensor that is normalised in groups. */
export function sizes(x: Tensor, groups: number): NormSizes {
  const images = x.shape[0], channels = x.shape.at(-1)!;
  return { images, channels, pixels: sizeOf(x.shape) / images / channels, each: channels / groups };
}

/** Writes the moments of `[batch, 2, channels]`. */
export function momentsOnHost(
  node: Tensor,
  x: HostArray,
  { groups, eps }: NormAttributes,
  out: HostArray,
): void {
  const { images, channels, pixels, each } = sizes(node, groups);
  for (let n = 0; n < images; n++) {
    for (let c = 0; c < channels; c += each) {
      const values: number[] = [];
      for (let p = 0; p < pixels; p++) {
        const at = (n * pixels + p) * channels + c;
        values.push(...x.subarray(at, at + each));
      }
      const mean = values.reduce((s, v) => s + v, 0) / values.length;
      const variance = values.reduce((s, v) => s + (v - mean) ** 2, 0) / values.length;
      const first = n * 2 * channels + c;
      out.fill(mean, first, first + each);
      out.fill(1 / Math.sqrt(variance + eps), first + channels, first + channels + each);
    }
  }
}

/** Mean and 1 / √(variance + eps) of each channel's group, `[batch, 2, 1, channels]`. */
export const momentsOp: Op<NormAttributes> = {
  name: "group_moments",
  infer: ([x]) => ({
    shape: [x.shape[0], 2, ...x.shape.slice(2, -1).map(() => 1), x.shape.at(-1)!],
  }),
  reference: ({ inputs: [node], attributes }, [x], out) => momentsOnHost(node, x, attributes, out),
  variants: [{
    name: "workgroup",
    lower: (node, target) => {
      const { groups, eps } = node.attributes;
      return lowerMoments(node, sizes(node.inputs[0], groups), eps, target);
    },
  }],
  halves: { reads: true, writes: false },
  loops(node) {
    const [x] = node.inputs, { groups, eps } = node.attributes;
    const { images, channels, pixels, each } = sizes(x, groups);
    const { source, offset } = resolve(x), values = { storage: source, offset };
    const sums = new Scratch(images * channels), totals = new Scratch(images * groups);
    const perChannel = { strides: [channels, each, 1], offset: 0 };
    const perGroup = { strides: [groups, 1, 0], offset: 0 };
    const row = (i: 0 | 1) => ({ storage: node, offset: i * channels });
    // The variance is taken around the mean in a second pass: a single one cancels digits.
    const sumAround = (center: Access<Storage>, expression: e.Expression): Loop<Storage> => ({
      label: "group_norm, sums",
      domain: [images, pixels, channels],
      summed: [false, true, false],
      operands: [{ ...values, strides: denseStrides([images, pixels, channels]) }, center],
      results: [{ storage: sums, strides: [channels, 0, 1], offset: 0, expression }],
    });
    const fold = (
      operands: Loop<Storage>["operands"],
      value: e.Expression,
      i: 0 | 1,
      result: e.Expression,
    ): Loop<Storage>[] => [
      {
        label: "group_norm, totals",
        domain: [images, groups, each],
        summed: [false, false, true],
        operands,
        results: [{ storage: totals, ...perGroup, expression: value }],
      },
      {
        label: "group_norm, moments",
        domain: [images, groups, each],
        summed: [false, false, false],
        operands: [{ storage: totals, ...perGroup }],
        results: [{ ...row(i), strides: [2 * channels, each, 1], expression: result }],
      },
    ];
    const [first, second] = [e.argument(0), e.argument(1)], delta = e.sub(first, second);
    const sum = { storage: sums, ...perChannel };
    const start = { ...values, strides: [pixels * channels, each, 1] };
    const variance = e.div(first, pixels * each);
    return [
      sumAround({ ...values, strides: [pixels * channels, 0, 1] }, delta),
      ...fold([start, sum], e.add(first, e.div(second, pixels)), 0, e.div(first, each)),
      sumAround({ ...row(0), strides: [2 * channels, 0, 1] }, e.mul(delta, delta)),
      ...fold([sum], first, 1, e.div(1, e.sqrt(e.add(variance, eps)))),
    ];
  },
};

/**
 * Mean and reciprocal deviation of each channel's group, each `[batch, 1, 1, channels]`. They are so
 * few that they are kept where the tensor is computed again.
 */
export function moments(x: Tensor, attributes: NormAttributes) {
  const both = apply(momentsOp, [withoutWaiting(x)], attributes);
  return { both, mean: slice(both, 1, 0, 1), rstd: slice(both, 1, 1, 1) };
}
