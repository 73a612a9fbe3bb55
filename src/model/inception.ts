/**
 * The network behind the Fréchet inception distance (Heusel et al. 2017): Inception v3 with the weights
 * of TensorFlow's graph of 2015, under the names that pytorch-fid, torch-fidelity and torchvision give
 * them. Torchvision's own weights are others, and of 1000 classes.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../config.ts";
import { concat } from "../gpu/ops/concat.ts";
import { conv2d } from "../gpu/ops/conv2d.ts";
import { add, div, map, mul, sqrt, sub } from "../gpu/ops/map.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { averagePoolSame, maxPool } from "../gpu/ops/pool.ts";
import { mean } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import type { Tensor } from "../gpu/tensor.ts";
import {
  type BlockConv,
  type BlockLayer,
  inceptionBlocks,
  type Pooling,
} from "./inception_blocks.ts";
import { defineNetwork, type ItemFeatures, type NetworkMaker, registerNetwork } from "./network.ts";
import type { ParameterSource } from "./parameters.ts";

/** The class of it in configurations. */
export const INCEPTION = "InceptionV3";
/** Height and width of the pictures that it is shown. */
export const INCEPTION_SIDE = 299;
/** What it tells pictures apart by, and the classes of its training. */
const WIDTH = 2048, CLASSES = 1008;
/** What is added to variances. */
const EPSILON = 1e-3;

/** Convolution, batch normalisation with the moments of training, ReLU. */
function convolve(
  parameter: ParameterSource,
  block: string,
  { name: own, channels, size: [height, width], stride, isPadded }: BlockConv,
  x: Tensor,
): Tensor {
  const name = own ? `${block}.${own}` : block;
  const weight = parameter({
    ...{ name: `${name}.conv.weight`, shape: [height, width, x.shape[3], channels] },
    ...{ order: "conv", init: "xavier", isTrained: true },
  });
  const vector = (part: string, init: "zeros" | "ones", isTrained: boolean) =>
    parameter({ name: `${name}.bn.${part}`, shape: [channels], order: "plain", init, isTrained });
  const scale = vector("weight", "ones", true), shift = vector("bias", "zeros", true);
  const center = vector("running_mean", "zeros", false);
  const factor = div(scale, sqrt(add(vector("running_var", "ones", false), EPSILON)));
  const [v, h] = isPadded ? [(height - 1) / 2, (width - 1) / 2] : [0, 0];
  return map(
    [
      conv2d(x, weight, undefined, { stride, padding: [v, v, h, h] }),
      factor,
      sub(shift, mul(center, factor)),
    ],
    (x, factor, shift) => e.max(e.add(e.mul(x, factor), shift), 0),
  );
}

const poolings: Record<Pooling, (x: Tensor) => Tensor> = {
  "max": (x) => maxPool(x, 3, { stride: 2, padding: [0, 0, 0, 0] }),
  "max, same size": (x) => maxPool(x, 3, { stride: 1, padding: [1, 1, 1, 1] }),
  "average": (x) => averagePoolSame(x, 3),
};

/** A layer of a branch of a block. */
function layer(parameter: ParameterSource, block: string, kind: BlockLayer, x: Tensor): Tensor {
  if (typeof kind === "string") return poolings[kind](x);
  const convolutions = "name" in kind ? [kind] : kind;
  return concat(convolutions.map((one) => convolve(parameter, block, one, x)), 3);
}

/** The results of all blocks in order, by name, given pictures `[batch, 299, 299, 3]`. */
export function inceptionMaps(parameter: ParameterSource, pictures: Tensor): Map<string, Tensor> {
  const maps = new Map<string, Tensor>();
  let x = pictures;
  for (const { name, branches } of inceptionBlocks) {
    x = concat(
      branches.map((branch) => branch.reduce((x, kind) => layer(parameter, name, kind, x), x)),
      3,
    );
    maps.set(name, x);
  }
  return maps;
}

/** The means of the last block over all pixels, and a dense layer. */
function extract(parameter: ParameterSource, pictures: Tensor): ItemFeatures {
  const last = [...inceptionMaps(parameter, pictures).values()].at(-1)!;
  const features = reshape(mean(last, [1, 2]), [pictures.shape[0], WIDTH]);
  const weight = parameter({
    ...{ name: "fc.weight", shape: [CLASSES, WIDTH], order: "linear" },
    ...{ init: "xavier", isTrained: true },
  });
  const bias = parameter({
    ...{ name: "fc.bias", shape: [CLASSES], order: "plain", init: "zeros", isTrained: true },
  });
  return { features, logits: linear(features, weight, bias) };
}

const schema = z.strictObject({});

/** The class of networks; there is nothing to configure. */
export const inception: NetworkMaker<Readonly<Record<never, never>>> = defineNetwork({
  className: INCEPTION,
  parse(json) {
    const known = Object.entries(json).filter(([key]) => !key.startsWith("_"));
    return parseWith(schema, Object.fromEntries(known), `configuration of an ${INCEPTION}`);
  },
  format: () => ({}),
  resize: () => ({}),
  build: () => ({
    kind: "feature extractor",
    itemShape: [INCEPTION_SIDE, INCEPTION_SIDE, 3],
    width: WIDTH,
    classes: CLASSES,
    forward: ({ parameter }, pictures) => extract(parameter, pictures),
  }),
});
registerNetwork(inception);
