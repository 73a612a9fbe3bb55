/**
 * Convolution of images `[batch, height, width, channels]` with kernels
 * `[height, width, in, out]`: {@linkcode conv2d} and its two gradients. Each of the three is linear
 * in both inputs, and the gradients of each are the other two.
 *
 * @module
 */

import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import type { Case, Op } from "../op.ts";
import { formatShape, type Shape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerForward, lowerInputGrad, lowerWeightGrad } from "../wasm/conv2d.ts";
import { forwardVariant, inputGradVariant, weightGradVariant } from "../wgsl/conv2d.ts";
import { forwardByWinograd, inputGradByWinograd, weightGradByWinograd } from "../wgsl/winograd.ts";
import { sum } from "./sum.ts";
import { reshape, slice } from "./view.ts";

const flops = (s: ConvSizes) =>
  2 * s.batch * s.outHeight * s.outWidth * s.outChannels * s.kernelHeight * s.kernelWidth *
  s.channels;

/** The length of the result along an axis. */
const outLength = (size: number, kernel: number, before: number, after: number, stride: number) =>
  Math.floor((size + before + after - kernel) / stride) + 1;

/** Calls `visit` with the offsets of every pair of pixels that a tap of the kernel connects. */
function eachTap(
  s: ConvSizes,
  visit: (image: number, kernel: number, result: number) => void,
): void {
  const [top, , left] = s.padding;
  for (let n = 0; n < s.batch; n++) {
    for (let oy = 0; oy < s.outHeight; oy++) {
      for (let ox = 0; ox < s.outWidth; ox++) {
        const result = ((n * s.outHeight + oy) * s.outWidth + ox) * s.outChannels;
        for (let ty = 0; ty < s.kernelHeight; ty++) {
          const y = oy * s.stride + ty - top;
          if (y < 0 || y >= s.height) continue;
          for (let tx = 0; tx < s.kernelWidth; tx++) {
            const x = ox * s.stride + tx - left;
            if (x < 0 || x >= s.width) continue;
            const image = ((n * s.height + y) * s.width + x) * s.channels;
            const kernel = (ty * s.kernelWidth + tx) * s.channels * s.outChannels;
            visit(image, kernel, result);
          }
        }
      }
    }
  }
}

const forwardOp: Op<Window> = {
  name: "conv2d",
  infer([x, w, bias], { stride, padding: [top, bottom, left, right] }) {
    const [n, h, width, c] = x.shape, [kh, kw, c2, k] = w.shape;
    if (x.shape.length !== 4 || w.shape.length !== 4 || c !== c2) {
      throw new RangeError(
        `Cannot convolve ${formatShape(x.shape)} with a kernel ${
          formatShape(w.shape)
        }: they must ` +
          "be [batch, height, width, channels] and [height, width, channels, out]",
      );
    }
    if (bias && (bias.shape.length !== 1 || bias.shape[0] !== k)) {
      throw new RangeError(`Cannot add a bias ${formatShape(bias.shape)} to ${k} channels`);
    }
    const height = outLength(h, kh, top, bottom, stride);
    return { shape: [n, height, outLength(width, kw, left, right, stride), k] };
  },
  reference({ inputs: [image, kernel], shape, attributes }, [x, w, bias], out) {
    const s = convSizes(image.shape, kernel.shape, shape, attributes);
    const { channels, outChannels } = s, sums = new Float64Array(out.length);
    if (bias) { for (let i = 0; i < out.length; i += outChannels) sums.set(bias, i); }
    eachTap(s, (image, kernel, result) => {
      for (let c = 0; c < channels; c++) {
        const v = x[image + c];
        for (let k = 0, at = kernel + c * outChannels; k < outChannels; k++) {
          sums[result + k] += v * w[at + k];
        }
      }
    });
    out.set(sums);
  },
  gradient: ({ inputs: [x, w, bias], attributes }, g, needed) => [
    needed[0] ? conv2dInputGrad(g, w, x.shape, attributes) : undefined,
    needed[1] ? conv2dWeightGrad(x, g, w.shape, attributes) : undefined,
    ...(bias ? [needed[2] ? reshape(sum(g, [0, 1, 2]), bias.shape) : undefined] : []),
  ],
  flops: ({ inputs: [x, w], shape, attributes }) =>
    flops(convSizes(x.shape, w.shape, shape, attributes)),
  variants: [forwardByWinograd, forwardVariant],
  halves: { reads: true, writes: true },
  wasm: lowerForward,
  fuses: { input: true, output: true },
};

const inputGradOp: Op<Window & { shape: Shape }> = {
  name: "conv2d_input_grad",
  infer: (_, { shape }) => ({ shape }),
  reference({ inputs: [result, kernel], shape, attributes }, [g, w], out) {
    const s = convSizes(shape, kernel.shape, result.shape, attributes);
    const { channels, outChannels } = s, sums = new Float64Array(out.length);
    eachTap(s, (image, kernel, result) => {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = 0, at = kernel + c * outChannels; k < outChannels; k++) {
          sum += g[result + k] * w[at + k];
        }
        sums[image + c] += sum;
      }
    });
    out.set(sums);
  },
  gradient: ({ inputs: [g, w], attributes }, gg, needed) => [
    needed[0] ? conv2d(gg, w, undefined, attributes) : undefined,
    needed[1] ? conv2dWeightGrad(gg, g, w.shape, attributes) : undefined,
  ],
  flops: ({ inputs: [g, w], shape, attributes }) =>
    flops(convSizes(shape, w.shape, g.shape, attributes)),
  variants: [inputGradByWinograd, inputGradVariant],
  halves: { reads: true, writes: true },
  wasm: lowerInputGrad,
  fuses: { input: false, output: true },
};

const weightGradOp: Op<Window & { shape: Shape }> = {
  name: "conv2d_weight_grad",
  infer: (_, { shape }) => ({ shape }),
  reference({ inputs: [image, result], shape, attributes }, [x, g], out) {
    const s = convSizes(image.shape, shape, result.shape, attributes);
    const { channels, outChannels } = s, sums = new Float64Array(out.length);
    eachTap(s, (image, kernel, result) => {
      for (let c = 0; c < channels; c++) {
        const v = x[image + c];
        for (let k = 0, at = kernel + c * outChannels; k < outChannels; k++) {
          sums[at + k] += v * g[result + k];
        }
      }
    });
    out.set(sums);
  },
  gradient: ({ inputs: [x, g], attributes }, gg, needed) => [
    needed[0] ? conv2dInputGrad(g, gg, x.shape, attributes) : undefined,
    needed[1] ? conv2d(x, gg, undefined, attributes) : undefined,
  ],
  flops: ({ inputs: [x, g], shape, attributes }) =>
    flops(convSizes(x.shape, shape, g.shape, attributes)),
  variants: [weightGradByWinograd, weightGradVariant],
  halves: { reads: true, writes: false },
  wasm: lowerWeightGrad,
};

/**
 * Cross-correlation, as everybody in the field calls convolution, plus a bias.
 *
 * @param x `[batch, height, width, in]`
 * @param weight `[height, width, in, out]`
 * @param bias `[out]`
 */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  window: Window,
): Tensor {
  const { stride, padding } = window;
  return apply(forwardOp, bias ? [x, weight, bias] : [x, weight], { stride, padding });
}

/** The gradient by the image, of `shape`, given the gradient `g` by the result. */
function conv2dInputGrad(g: Tensor, weight: Tensor, shape: Shape, window: Window): Tensor {
  const { stride, padding } = window;
  return apply(inputGradOp, [g, weight], { stride, padding, shape });
}

/** The gradient by the kernel, of `shape`, given the gradient `g` by the result. */
function conv2dWeightGrad(x: Tensor, g: Tensor, shape: Shape, window: Window): Tensor {
  const { stride, padding } = window;
  return apply(weightGradOp, [x, g], { stride, padding, shape });
}

/** The window of a kernel that keeps the image's size. */
export function same(kernel: number): Window {
  const p = (kernel - 1) / 2;
  return { stride: 1, padding: [p, p, p, p] };
}

const shapes: readonly (readonly [string, Shape, Shape, Window])[] = [
  ["3x3", [2, 8, 8, 32], [3, 3, 32, 32], same(3)],
  ["3x3, odd image", [3, 7, 13, 8], [3, 3, 8, 12], same(3)],
  ["3x3, one channel in, batch 1", [1, 7, 13, 1], [3, 3, 1, 8], same(3)],
  ["3x3, five in, one out", [3, 7, 13, 5], [3, 3, 5, 1], same(3)],
  ["3x3, ragged tiles", [3, 7, 13, 16], [3, 3, 16, 32], same(3)],
  ["3x3, several images a block", [5, 6, 6, 24], [3, 3, 24, 16], same(3)],
  ["3x3, several blocks an image", [1, 29, 34, 16], [3, 3, 16, 16], same(3)],
  ["3x3, uneven padding", [2, 9, 8, 16], [3, 3, 16, 16], { stride: 1, padding: [0, 2, 1, 0] }],
  ["3x3, stride 2", [2, 8, 10, 8], [3, 3, 8, 4], { stride: 2, padding: [1, 1, 1, 1] }],
  ["3x3, stride 2, padded at the end", [1, 8, 8, 4], [3, 3, 4, 8], {
    stride: 2,
    padding: [0, 1, 0, 1],
  }],
  ["3x3, stride 2, odd image and channels", [3, 7, 13, 5], [3, 3, 5, 3], {
    stride: 2,
    padding: [1, 1, 1, 1],
  }],
  ["3x3, one block of many channels", [1, 13, 12, 16], [3, 3, 16, 96], same(3)],
  ["3x3, many weights", [1, 4, 5, 128], [3, 3, 128, 120], same(3)],
  ["1x1, stride 2", [2, 7, 6, 8], [1, 1, 8, 12], { stride: 2, padding: [0, 0, 0, 0] }],
  ["2x4, stride 3", [2, 8, 10, 4], [2, 4, 4, 8], { stride: 3, padding: [0, 1, 2, 1] }],
  ["1x1", [3, 7, 13, 12], [1, 1, 12, 36], same(1)],
  ["1x1, odd channels", [1, 7, 13, 5], [1, 1, 5, 7], same(1)],
  ["wide padding", [1, 3, 4, 4], [3, 3, 4, 4], { stride: 1, padding: [2, 3, 0, 2] }],
  ["5x3", [1, 9, 8, 4], [5, 3, 4, 4], { stride: 1, padding: [2, 2, 1, 1] }],
];

const cases = (
  build: (x: Shape, w: Shape, y: Shape, window: Window) => Omit<Case, "name">,
): Case[] =>
  shapes.map(([name, x, w, window]) => {
    const [top, bottom, left, right] = window.padding;
    const h = outLength(x[1], w[0], top, bottom, window.stride);
    const width = outLength(x[2], w[1], left, right, window.stride);
    return { name, ...build(x, w, [x[0], h, width, w[3]], window) };
  });

/** All operations of this file. */
export const convOps: readonly Op[] = [
  {
    ...forwardOp,
    cases: [
      ...cases((x, w, _, window) => ({
        inputs: [{ shape: x }, { shape: w }, { shape: [w[3]] }],
        build: (x, w, bias) => conv2d(x, w, bias, window),
      })),
      ...[1, 3].flatMap((size) =>
        [4, 8].map((channels) => ({
          name: `${size}x${size} of ${channels} of the channels`,
          inputs: [{ shape: [2, 9, 12, 12] }, { shape: [size, size, channels, 8] }],
          build: (x: Tensor, w: Tensor) =>
            conv2d(slice(x, 3, 4, channels), w, undefined, same(size)),
        }))
      ),
    ],
  },
  {
    ...inputGradOp,
    cases: cases((x, w, y, window) => ({
      inputs: [{ shape: y }, { shape: w }],
      build: (g, w) => conv2dInputGrad(g, w, x, window),
    })),
  },
  {
    ...weightGradOp,
    cases: cases((x, w, y, window) => ({
      inputs: [{ shape: x }, { shape: y }],
      build: (x, g) => conv2dWeightGrad(x, g, w, window),
    })),
  },
];
