/**
 * Layer normalisation (Ba, Kiros and Hinton 2016), {@linkcode layerNorm}.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Op } from "../op.ts";
import { formatShape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerLayerNorm } from "../wasm/layer_norm.ts";
import { add, map, mul, square, sub } from "./map.ts";
import { mean, sumTo } from "./sum.ts";
import { permute } from "./view.ts";

/** Rows with mean 0 and variance 1, and their reciprocal deviations. */
function standardise(x: Tensor, eps: number): { normal: Tensor; reciprocal: Tensor } {
  const last = [x.shape.length - 1], centered = sub(x, mean(x, last));
  const variance = mean(square(centered), last);
  const reciprocal = map([variance], (v) => e.div(1, e.sqrt(e.add(v, eps))));
  return { normal: mul(centered, reciprocal), reciprocal };
}

const layerNormOp: Op<{ readonly eps: number }> = {
  name: "layer_norm",
  infer([x, scale, shift]) {
    const channels = x.shape.at(-1)!;
    if ([scale, shift].some(({ shape }) => shape.length !== 1 || shape[0] !== channels)) {
      const [a, b] = [scale, shift].map(({ shape }) => formatShape(shape));
      throw new RangeError(
        `Cannot normalise ${formatShape(x.shape)} with scale ${a} and shift ${b}: they must be ` +
          `[${channels}]`,
      );
    }
    return { shape: x.shape };
  },
  reference({ inputs: [node], attributes: { eps } }, [x, scale, shift], out) {
    const width = node.shape.at(-1)!;
    for (let start = 0; start < x.length; start += width) {
      let mean = 0, variance = 0;
      for (let c = 0; c < width; c++) mean += x[start + c] / width;
      for (let c = 0; c < width; c++) variance += (x[start + c] - mean) ** 2 / width;
      const deviation = Math.sqrt(variance + eps);
      for (let c = 0; c < width; c++) {
        out[start + c] = (x[start + c] - mean) / deviation * scale[c] + shift[c];
      }
    }
  },
  expand(node, computes) {
    const [x, scale, shift] = node.inputs;
    if (computes(node)) return undefined;
    return add(mul(standardise(x, node.attributes.eps).normal, scale), shift);
  },
  gradient({ inputs: [x, scale, shift], attributes: { eps } }, g, needed) {
    const { normal, reciprocal } = standardise(x, eps), last = [x.shape.length - 1];
    const along = mul(g, scale), product = mul(along, normal);
    const rest = sub(sub(along, mean(along, last)), mul(normal, mean(product, last)));
    return [
      needed[0] ? mul(rest, reciprocal) : undefined,
      needed[1] ? sumTo(mul(g, normal), scale.shape) : undefined,
      needed[2] ? sumTo(g, shift.shape) : undefined,
    ];
  },
  wasm: lowerLayerNorm,
  wasmPays: () => true,
  cases: [
    {
      name: "tokens",
      inputs: [{ shape: [2, 9, 16] }, { shape: [16] }, { shape: [16] }],
      build: (x, scale, shift) => layerNorm(x, scale, shift, 1e-5),
    },
    {
      name: "odd width, far from zero",
      inputs: [{ shape: [3, 5, 37], range: [9, 10] }, { shape: [37] }, { shape: [37] }],
      build: (x, scale, shift) => layerNorm(x, scale, shift, 1e-5),
    },
    {
      name: "one channel",
      inputs: [{ shape: [3, 1] }, { shape: [1] }, { shape: [1] }],
      build: (x, scale, shift) => layerNorm(x, scale, shift, 1e-5),
    },
    {
      name: "nearly constant, where eps shows",
      inputs: [{ shape: [7, 12], range: [1, 1.1] }, { shape: [12] }, { shape: [12] }],
      build: (x, scale, shift) => layerNorm(x, scale, shift, 1e-3),
    },
    {
      name: "of a view",
      inputs: [{ shape: [6, 4, 3] }, { shape: [4] }, { shape: [4] }],
      build: (x, scale, shift) => layerNorm(permute(x, [2, 0, 1]), scale, shift, 1e-5),
    },
  ],
};

/**
 * Normalises the last axis to mean 0 and variance 1, then scales and shifts each channel.
 *
 * @param x `[..., channels]`
 * @param scale `[channels]`
 * @param shift `[channels]`
 */
export function layerNorm(x: Tensor, scale: Tensor, shift: Tensor, eps: number): Tensor {
  return apply(layerNormOp, [x, scale, shift], { eps });
}

/** All operations of this file. */
export const layerNormOps: readonly Op[] = [layerNormOp];
