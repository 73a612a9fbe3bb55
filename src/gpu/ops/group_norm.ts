/**
 * Group normalisation (Wu and He 2018), {@linkcode groupNorm}, of channels-last tensors.
 *
 * Moments are taken per channel first and then folded over groups; what varies by image and channel
 * only is a `[batch, 2, 1, channels]` tensor, and the rest is elementwise and fuses with its
 * neighbours. GPUs have kernels that take a group at a time, for moments and for the gradient.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Access, Loop } from "../loop.ts";
import type { Case, Op } from "../op.ts";
import { denseStrides, formatShape, sizeOf } from "../shape.ts";
import { apply, type HostArray, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import { lowerGradient, lowerMoments, type NormSizes } from "../wgsl/group_norm.ts";
import { Scratch, type Storage } from "../storage.ts";
import { add, map } from "./map.ts";
import { sum } from "./sum.ts";
import { after, reshape, slice, withoutWaiting } from "./view.ts";

interface NormAttributes {
  readonly groups: number;
  readonly eps: number;
}

/** Sizes of a channels-last tensor that is normalised in groups. */
function sizes(x: Tensor, groups: number): NormSizes {
  const images = x.shape[0], channels = x.shape.at(-1)!;
  return { images, channels, pixels: sizeOf(x.shape) / images / channels, each: channels / groups };
}

const groupNormOp: Op<NormAttributes> = {
  name: "group_norm",
  infer([x, scale, shift], { groups }) {
    const channels = x.shape.at(-1)!;
    if (x.shape.length < 2 || channels % groups) {
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
      isNeeded ? apply(gradientOp, [x, scale, g], { ...attributes, by }) : undefined
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

/** The gradient by the input, the scale or the shift. */
const gradientOp: Op<NormAttributes & { by: number }> = {
  name: "group_norm_grad",
  infer: ([x, scale], { by }) => ({ shape: by === 0 ? x.shape : scale.shape }),
  reference({ inputs: [node], attributes }, [x, scale, g], out) {
    const { images, channels, each } = sizes(node, attributes.groups);
    const stats = new Float64Array(images * 2 * channels);
    momentsOnHost(node, x, attributes, stats);
    const given = [g, x, stats, scale], sums = sumsOnHost(node, given, each);
    if (attributes.by === 0) return inputGradOnHost(node, [...given, sums], each, out);
    for (let n = 0; n < images; n++) {
      for (let c = 0; c < channels; c++) {
        out[c] += sums[(SUMS * n + attributes.by % 2) * channels + c];
      }
    }
  },
  expand({ inputs: [x, scale, g], attributes: { by, ...attributes } }, computes) {
    const { both, mean, rstd } = moments(x, attributes);
    const sums = apply(fusedSumsOp, [g, x, both, scale], attributes);
    const whole = apply(fusedInputGradOp, [g, x, both, scale, sums], attributes);
    if (computes(whole)) {
      if (by === 0) return whole;
      return reshape(sum(slice(after(sums, whole), 1, by % 2, 1), [0]), scale.shape);
    }
    const pixelAxes = x.shape.map((_, i) => i).slice(1, -1);
    const normal = (x: e.Expression, mean: e.Expression, rstd: e.Expression) =>
      e.mul(e.sub(x, mean), rstd);
    // Per image and channel: sums of the gradient, and of the gradient times the normalised value.
    const g0 = sum(g, pixelAxes);
    const g1 = sum(
      map([g, x, mean, rstd], (g, x, mean, rstd) => e.mul(g, normal(x, mean, rstd))),
      pixelAxes,
    );
    if (by > 0) return reshape(sum(by === 1 ? g1 : g0, [0]), scale.shape);
    const means = apply(groupMeansOp, [x, g0, g1, scale], attributes);
    return map(
      [g, x, mean, rstd, scale, slice(means, 1, 0, 1), slice(means, 1, 1, 1)],
      (g, x, mean, rstd, scale, m0, m1) =>
        e.mul(rstd, e.sub(e.sub(e.mul(g, scale), m0), e.mul(normal(x, mean, rstd), m1))),
    );
  },
  cases: [
    ...["input", "scale", "shift"].flatMap((name, by): Case[] => [
      {
        name: `by ${name}`,
        inputs: [{ shape: [2, 8, 8, 16] }, { shape: [16] }, { shape: [2, 8, 8, 16] }],
        build: (...inputs) => apply(gradientOp, inputs, { groups: 2, eps: 1e-5, by }),
      },
      {
        name: `by ${name}, odd`,
        inputs: [{ shape: [3, 7, 13, 6] }, { shape: [6] }, { shape: [3, 7, 13, 6] }],
        build: (...inputs) => apply(gradientOp, inputs, { groups: 2, eps: 1e-5, by }),
      },
    ]),
    {
      name: "by input, and its sums over pixels",
      inputs: [{ shape: [2, 5, 1, 16] }, { shape: [16] }, { shape: [2, 5, 1, 16] }],
      build(...inputs) {
        const dx = apply(gradientOp, inputs, { groups: 2, eps: 1e-5, by: 0 });
        return add(dx, sum(dx, [1, 2]));
      },
    },
  ],
};

/** Writes the moments of `[batch, 2, channels]`. */
function momentsOnHost(
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
const momentsOp: Op<NormAttributes> = {
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
function moments(x: Tensor, attributes: NormAttributes) {
  const both = apply(momentsOp, [withoutWaiting(x)], attributes);
  return { both, mean: slice(both, 1, 0, 1), rstd: slice(both, 1, 1, 1) };
}

/** Means over each channel's group of scale · g0 and scale · g1, `[batch, 2, 1, channels]`. */
const groupMeansOp: Op<NormAttributes> = {
  name: "group_means",
  infer: momentsOp.infer,
  reference({ inputs: [node], attributes: { groups } }, [, g0, g1, scale], out) {
    const { images, channels, pixels, each } = sizes(node, groups);
    for (let i = 0; i < images * 2; i++) {
      const from = i % 2 ? g1 : g0, n = i >> 1;
      for (let c = 0; c < channels; c += each) {
        let total = 0;
        for (let k = c; k < c + each; k++) total += scale[k] * from[n * channels + k];
        out.fill(total / (each * pixels), i * channels + c, i * channels + c + each);
      }
    }
  },
  halves: { reads: true, writes: false },
  loops(node) {
    const [x, ...inputs] = node.inputs, { groups } = node.attributes;
    const { images, channels, pixels, each } = sizes(x, groups), domain = [images, groups, each];
    const totals = [new Scratch(images * groups), new Scratch(images * groups)];
    const strides = [[channels, each, 1], [channels, each, 1], [0, each, 1]];
    const operands = inputs.map((input, i) => {
      const { source, offset } = resolve(input);
      return { storage: source, offset, strides: strides[i] };
    });
    const total = { strides: [groups, 1, 0], offset: 0 };
    return [
      {
        label: "group_norm, gradient totals",
        domain,
        summed: [false, false, true],
        operands,
        results: totals.map((storage, i) => ({
          ...{ storage, ...total },
          expression: e.mul(e.argument(i), e.argument(2)),
        })),
      },
      {
        label: "group_norm, gradient means",
        domain,
        summed: [false, false, false],
        operands: totals.map((storage) => ({ storage, ...total })),
        results: totals.map((_, i) => ({
          ...{ storage: node, offset: i * channels, strides: [2 * channels, each, 1] },
          expression: e.div(e.argument(i), pixels * each),
        })),
      },
    ];
  },
};

/**
 * Sums per image and channel: of the gradient, of the gradient times the normalised value, and of the
 * gradient by the input.
 */
const SUMS = 3;

function sumsOnHost(node: Tensor, given: readonly HostArray[], each: number) {
  const [g, x, stats] = given, { images, channels, pixels } = sizes(node, 1);
  const out = new Float64Array(images * SUMS * channels), dx = new Float64Array(g.length);
  const eachElement = (visit: (i: number, at: number, stats: number) => void) => {
    for (let i = 0; i < g.length; i++) {
      const n = Math.floor(i / (pixels * channels)), c = i % channels;
      visit(i, SUMS * n * channels + c, 2 * n * channels + c);
    }
  };
  eachElement((i, at, mean) => {
    out[at] += g[i];
    out[at + channels] += g[i] * (x[i] - stats[mean]) * stats[mean + channels];
  });
  inputGradOnHost(node, [...given, out], each, dx);
  eachElement((i, at) => out[at + 2 * channels] += dx[i]);
  return out;
}

/** Writes the gradient by the input, given those sums. */
function inputGradOnHost(
  node: Tensor,
  [g, x, stats, scale, sums]: readonly HostArray[],
  each: number,
  out: HostArray,
): void {
  const { channels, pixels } = sizes(node, 1);
  const mean = (first: number, c: number) => {
    let total = 0;
    for (let k = 0; k < each; k++) total += scale[c + k] * sums[first + c + k];
    return total / (each * pixels);
  };
  for (let i = 0; i < g.length; i++) {
    const n = Math.floor(i / (pixels * channels)), c = i % channels, first = c - c % each;
    const rstd = stats[(2 * n + 1) * channels + c];
    const normal = (x[i] - stats[2 * n * channels + c]) * rstd, row = SUMS * n * channels;
    out[i] = rstd * (g[i] * scale[c] - mean(row, first) - normal * mean(row + channels, first));
  }
}

/** Those sums, `[batch, 3, 1, channels]`: the kernel of {@linkcode fusedInputGradOp} writes them. */
const fusedSumsOp: Op<NormAttributes> = {
  name: "fused_group_norm_sums",
  infer: ([, , both]) => ({ shape: both.shape.with(1, SUMS) }),
  reference: ({ inputs: [node], attributes: { groups } }, arrays, out) =>
    out.set(sumsOnHost(node, arrays, sizes(node, groups).each)),
  variants: [{ name: "group", lower: () => [] }],
  halves: { reads: true, writes: false },
};

/** The gradient by the input, and the sums of its last input, in one kernel. */
const fusedInputGradOp: Op<NormAttributes> = {
  name: "fused_group_norm_grad",
  infer: ([g]) => ({ shape: g.shape }),
  reference: ({ inputs: [node], attributes: { groups } }, arrays, out) =>
    inputGradOnHost(node, arrays, sizes(node, groups).each, out),
  variants: [{
    name: "group",
    fuses: { input: false, output: true },
    // A workgroup takes a group of an image.
    pays: ({ shape: [images], attributes: { groups } }, { workgroups }) =>
      32 * images * groups >= workgroups,
    lower: (node, target, fused) =>
      lowerGradient(node, sizes(node, node.attributes.groups), target, fused),
  }],
  fills: 4,
  sum(node, axes) {
    const pixels = node.shape.map((_, i) => i).slice(1, -1);
    const isOverPixels = pixels.every((i) => axes.includes(i) || node.shape[i] === 1) &&
      axes.every((i) => pixels.includes(i));
    return isOverPixels ? slice(after(node.inputs[4], node), 1, 2, 1) : undefined;
  },
  halves: { reads: true, writes: true },
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

/** All operations of this file. */
export const groupNormOps: readonly Op[] = [
  ...[groupNormOp, gradientOp, momentsOp, groupMeansOp, fusedSumsOp, fusedInputGradOp],
];
