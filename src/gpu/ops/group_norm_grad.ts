/**
 * The gradient of group normalisation, {@linkcode groupNormGradOp}: sums by image and channel, their
 * means over groups, and elementwise work; or one kernel, on GPUs that it suits.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Case, Op } from "../op.ts";
import { Scratch } from "../storage.ts";
import { apply, type HostArray, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import { lowerGradient } from "../wgsl/group_norm.ts";
import { moments, momentsOnHost, momentsOp, type NormAttributes, sizes } from "./group_moments.ts";
import { add, map } from "./map.ts";
import { sum } from "./sum.ts";
import { after, reshape, slice } from "./view.ts";

/** The gradient by the input, the scale or the shift. */
export const groupNormGradOp: Op<NormAttributes & { by: number }> = {
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
        out[c] += sums[(SUMS * n + rowFor(attributes.by)) * channels + c];
      }
    }
  },
  expand({ inputs: [x, scale, g], attributes: { by, ...attributes } }, computes) {
    const { both, mean, rstd } = moments(x, attributes);
    const sums = apply(fusedSumsOp, [g, x, both, scale], attributes);
    const whole = apply(fusedInputGradOp, [g, x, both, scale, sums], attributes);
    if (computes(whole)) {
      if (by === 0) return whole;
      return reshape(sum(slice(after(sums, whole), 1, rowFor(by), 1), [0]), scale.shape);
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
        build: (...inputs) => apply(groupNormGradOp, inputs, { groups: 2, eps: 1e-5, by }),
      },
      {
        name: `by ${name}, odd`,
        inputs: [{ shape: [3, 7, 13, 6] }, { shape: [6] }, { shape: [3, 7, 13, 6] }],
        build: (...inputs) => apply(groupNormGradOp, inputs, { groups: 2, eps: 1e-5, by }),
      },
    ]),
    {
      name: "by input, and its sums over pixels",
      inputs: [{ shape: [2, 5, 1, 16] }, { shape: [16] }, { shape: [2, 5, 1, 16] }],
      build(...inputs) {
        const dx = apply(groupNormGradOp, inputs, { groups: 2, eps: 1e-5, by: 0 });
        return add(dx, sum(dx, [1, 2]));
      },
    },
  ],
};

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

/** Which of the sums the gradient by the scale, 1, or the shift, 2, is made of. */
const rowFor = (by: number) => by === 1 ? 1 : 0;

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

/** All operations of this file. */
export const groupNormGradOps: readonly Op[] = [
  ...[groupNormGradOp, groupMeansOp, fusedSumsOp, fusedInputGradOp],
];
