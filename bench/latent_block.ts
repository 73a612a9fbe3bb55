/**
 * Parts of networks of latents as Stable Diffusion has them: a residual block, then a transformer
 * block with self-attention, attention to a text, and a gated feed-forward layer. Their weights may be
 * 16-bit floats.
 *
 * @module
 */

import { attention } from "../src/gpu/ops/attention.ts";
import { concat } from "../src/gpu/ops/concat.ts";
import { conv2d, same } from "../src/gpu/ops/conv2d.ts";
import { groupNorm } from "../src/gpu/ops/group_norm.ts";
import { layerNorm } from "../src/gpu/ops/layer_norm.ts";
import { add, gelu, mul, silu } from "../src/gpu/ops/map.ts";
import { linear, splitHeads } from "../src/gpu/ops/matmul.ts";
import { upsampleNearest } from "../src/gpu/ops/resample.ts";
import { permute, reshape, slice } from "../src/gpu/ops/view.ts";
import { widen, wordsOf } from "../src/gpu/ops/widen.ts";
import { type Graph, makeGraph } from "../src/gpu/graph.ts";
import { input, type Tensor } from "../src/gpu/tensor.ts";
import { type Shape, sizeOf } from "../src/shape.ts";

/** Tokens of a text and numbers of each. */
const TOKENS = 77, TEXT = 768, HEADS = 8, GROUPS = 32;

/** What parts share: where parameters come from, a vector of the time, and the text. */
interface Context {
  parameter(shape: Shape): Tensor;
  readonly time: Tensor;
  readonly text: Tensor;
}

/** Inputs as parameters: one buffer for all of them. */
function parameters(isHalf: boolean) {
  const slots: { at: number; shape: Shape }[] = [];
  let length = 0;
  return {
    /** Called twice: first to find the size of the buffer. */
    source(whole?: Tensor) {
      let i = 0;
      return (shape: Shape): Tensor => {
        if (!whole) {
          slots.push({ at: length, shape });
          length += isHalf ? Math.ceil(wordsOf(sizeOf(shape)) / 64) * 64 : sizeOf(shape);
          return input(`parameter ${slots.length}`, shape);
        }
        const { at } = slots[i++], size = sizeOf(shape);
        if (!isHalf) return reshape(slice(whole, 0, at, size), shape);
        return reshape(widen(slice(whole, 0, at, wordsOf(size)), size, "f16"), shape);
      };
    },
    whole: () => input("parameters", [length], isHalf ? "i32" : "f32"),
  };
}

const dense = (c: Context, x: Tensor, out: number, bias = true): Tensor =>
  linear(x, c.parameter([out, x.shape.at(-1)!]), bias ? c.parameter([out]) : undefined);

const convolve = (c: Context, x: Tensor, out: number, size: 1 | 3, stride: 1 | 2 = 1): Tensor =>
  conv2d(x, c.parameter([size, size, x.shape[3], out]), c.parameter([out]), {
    ...same(size),
    stride,
  });

const normalise = (c: Context, x: Tensor, eps: number): Tensor =>
  groupNorm(x, c.parameter([x.shape[3]]), c.parameter([x.shape[3]]), GROUPS, eps);

/** A residual block. */
function residual(c: Context, x: Tensor, out: number): Tensor {
  const first = convolve(c, silu(normalise(c, x, 1e-5)), out, 3);
  const time = reshape(dense(c, silu(c.time), out), [x.shape[0], 1, 1, out]);
  const second = convolve(c, silu(normalise(c, add(first, time), 1e-5)), out, 3);
  return add(x.shape[3] === out ? x : convolve(c, x, out, 1), second);
}

function attend(c: Context, x: Tensor, to: Tensor): Tensor {
  const [batch, length, channels] = x.shape;
  const [q, k, v] = [x, to, to].map((y) => splitHeads(dense(c, y, channels, false), HEADS));
  const joined = permute(attention(q, k, v), [0, 2, 1, 3]);
  return dense(c, reshape(joined, [batch, length, channels]), channels);
}

/** A transformer block over the pixels of an image. */
function transformer(c: Context, image: Tensor): Tensor {
  const [batch, height, width, channels] = image.shape;
  const norm = (x: Tensor) => layerNorm(x, c.parameter([channels]), c.parameter([channels]), 1e-5);
  let x = reshape(convolve(c, normalise(c, image, 1e-6), channels, 1), [
    ...[batch, height * width, channels],
  ]);
  const tokens = norm(x);
  x = add(x, attend(c, tokens, tokens));
  x = add(x, attend(c, norm(x), c.text));
  const both = dense(c, norm(x), 8 * channels);
  const [value, gate] = [0, 1].map((i) => slice(both, 2, 4 * i * channels, 4 * channels));
  x = add(x, dense(c, mul(value, gelu(gate)), channels));
  return add(image, convolve(c, reshape(x, image.shape), channels, 1));
}

/** A graph of latents, a time and a text by what is made of them. */
function graphOf(
  shape: Shape,
  isHalf: boolean,
  build: (c: Context, x: Tensor) => Tensor,
): Graph {
  const known = parameters(isHalf), x = input("x", shape);
  const context = {
    time: input("time", [shape[0], 1280]),
    text: input("text", [shape[0], TOKENS, TEXT]),
  };
  build({ ...context, parameter: known.source() }, x);
  return makeGraph({ y: build({ ...context, parameter: known.source(known.whole()) }, x) });
}

/** A residual block and a transformer block. */
export const latentBlock = (
  [batch, channels, side]: readonly number[],
  isHalf: boolean,
): Graph =>
  graphOf(
    [batch, side, side, channels],
    isHalf,
    (c, x) => transformer(c, residual(c, x, channels)),
  );

/** A UNet with the sizes of Stable Diffusion 1.5. */
export const latentUNet = ([batch, side]: readonly number[], isHalf: boolean): Graph =>
  graphOf([batch, side, side, 4], isHalf, (c, latents) => {
    const widths = [320, 640, 1280, 1280];
    let x = convolve(c, latents, widths[0], 3);
    const skips = [x];
    widths.forEach((width, level) => {
      for (let i = 0; i < 2; i++) {
        x = residual(c, x, width);
        if (level < 3) x = transformer(c, x);
        skips.push(x);
      }
      if (level < 3) skips.push(x = convolve(c, x, width, 3, 2));
    });
    x = residual(c, transformer(c, residual(c, x, 1280)), 1280);
    widths.toReversed().forEach((width, level) => {
      for (let i = 0; i < 3; i++) {
        x = residual(c, concat([x, skips.pop()!], 3), width);
        if (level > 0) x = transformer(c, x);
      }
      if (level < 3) x = convolve(c, upsampleNearest(x), width, 3);
    });
    return convolve(c, silu(normalise(c, x, 1e-5)), 4, 3);
  });
