/**
 * Layer normalisation (Ba, Kiros and Hinton 2016), {@linkcode layerNorm}.
 *
 * @module
 */

import * as e from "../expression.ts";
import { grad } from "../grad.ts";
import type { Op } from "../op.ts";
import { formatShape } from "../../shape.ts";
import { apply, type Tensor } from "../tensor.ts";
import { lowerLayerNorm } from "../wasm/layer_norm.ts";
import { map, mul, square, sub } from "./map.ts";
import { mean, sum } from "./sum.ts";
import { permute } from "./view.ts";

/** The same by sums and elementwise operations. */
function plainNorm([x, scale, shift]: readonly Tensor[], eps: number): Tensor {
  const last = [x.shape.length - 1], centered = sub(x, mean(x, last));
  return map(
    [centered, mean(square(centered), last), scale, shift],
    (x, variance, scale, shift) =>
      e.add(e.mul(e.div(x, e.sqrt(e.add(variance, eps))), scale), shift),
  );
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
  expand: (node, computes) =>
    computes(node) ? undefined : plainNorm(node.inputs, node.attributes.eps),
  gradient({ inputs, attributes: { eps } }, g, needed) {
    const tensors = [...new Set(inputs)];
    const gradients = grad(sum(mul(plainNorm(inputs, eps), g)), tensors);
    return inputs.map((x, i) =>
      needed[i] && inputs.indexOf(x) === i ? gradients[tensors.indexOf(x)] : undefined
    );
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
