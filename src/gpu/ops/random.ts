/**
 * Random tensors. Every element is a pure function of (seed, image, step, stream, element), so that
 * image 7 of a batch of 16 is image 7 of a batch of 64, on every device.
 *
 * @module
 */

import { less, mul } from "../expression.ts";
import type { Case, Op } from "../op.ts";
import {
  type Distribution,
  philox,
  type RandomAttributes,
  toInteger,
  toNormals,
  toUniform,
} from "../philox.ts";
import { type Shape, sizeOf } from "../../shape.ts";
import { apply, constant, type Tensor } from "../tensor.ts";
import { lowerRandom } from "../wasm/softmax_gather_random.ts";
import { randomVariant } from "../wgsl/philox.ts";
import { map } from "./map.ts";

/** Where in the sequence of random numbers a program is. */
export interface RandomState {
  /** `i32` `[2]`, the seed's words, low first. */
  readonly seed: Tensor;
  /** `i32` `[1]`, the number of the first image of the batch; or `[images]`, those of all. */
  readonly first: Tensor;
  /** `i32` `[1]`, the training or sampling step. */
  readonly step: Tensor;
}

const randomOp: Op<RandomAttributes> = {
  name: "random",
  infer(inputs, { shape, distribution }) {
    if (inputs.some((x) => x.dtype !== "i32")) {
      throw new TypeError("Cannot draw random numbers: seed, first and step must be i32");
    }
    const numbers = sizeOf(inputs[1].shape);
    if (numbers !== 1 && numbers !== shape[0]) {
      throw new RangeError(`Cannot draw numbers for ${shape[0]} images: ${numbers} are numbered`);
    }
    return { shape, dtype: distribution === "integer" ? "i32" : "f32" };
  },
  reference({ shape, attributes: { distribution, stream, below } }, [seed, first, step], out) {
    const each = sizeOf(shape.slice(1)), words = new Uint32Array(4), values = new Float64Array(4);
    const numberOf = (image: number) => first.length > 1 ? first[image] : first[0] + image;
    for (let image = 0; image < shape[0]; image++) {
      for (let i = 0; i < each; i += 4) {
        philox([i / 4, numberOf(image), step[0], stream], [seed[0], seed[1]], words);
        if (distribution === "normal") {
          values.set(toNormals(words[0], words[1]));
          values.set(toNormals(words[2], words[3]), 2);
        } else if (distribution === "uniform") values.set([...words].map(toUniform));
        else values.set([...words].map((word) => toInteger(word, below)));
        const n = Math.min(4, each - i);
        out.set(values.subarray(0, n), image * each + i);
      }
    }
  },
  gradient: () => [],
  variants: [randomVariant],
  wasm: lowerRandom,
};

const draw = (distribution: Distribution, below = 1) =>
(
  shape: Shape,
  { seed, first, step }: RandomState,
  stream: number,
): Tensor => apply(randomOp, [seed, first, step], { distribution, shape, stream, below });

/** Standard normals; `shape[0]` counts images. */
export const randomNormal: (shape: Shape, state: RandomState, stream: number) => Tensor = draw(
  "normal",
);

/** Uniforms in (0, 1); `shape[0]` counts images. */
export const randomUniform: (shape: Shape, state: RandomState, stream: number) => Tensor = draw(
  "uniform",
);

/** Integers in [0, below); `shape[0]` counts images. */
export function randomInteger(
  below: number,
  shape: Shape,
  state: RandomState,
  stream: number,
): Tensor {
  if (!(Number.isInteger(below) && below >= 1 && below < 2 ** 31)) {
    throw new RangeError(
      `Cannot draw integers below ${below}: the bound must be a positive integer`,
    );
  }
  return draw("integer", below)(shape, state, stream);
}

/**
 * Dropout (Srivastava et al. 2014): sets elements to zero with probability `rate` and scales the
 * others by 1 / (1 - rate).
 */
export function dropout(x: Tensor, rate: number, state: RandomState, stream: number): Tensor {
  if (!(rate >= 0 && rate < 1)) {
    throw new RangeError(`Cannot drop out at rate ${rate}: it must lie in [0, 1)`);
  }
  if (rate === 0) return x;
  const u = randomUniform(x.shape, state, stream);
  return map([x, u], (x, u) => mul(x, mul(less(rate, u), 1 / (1 - rate))));
}

const state: RandomState = {
  seed: constant(new Int32Array([123456789, 7])),
  first: constant(new Int32Array([3])),
  step: constant(new Int32Array([1000])),
};
const numbers = constant(new Int32Array([70000, -5, 3]));
const randomCases: readonly Case[] = [
  { name: "normal", inputs: [], build: () => randomNormal([3, 7, 13, 5], state, 1) },
  { name: "uniform", inputs: [], build: () => randomUniform([2, 28, 28, 8], state, 2) },
  { name: "integer", inputs: [], build: () => randomInteger(1000, [128], state, 3) },
  {
    ...{ name: "numbered images", inputs: [] },
    build: () => randomNormal([3, 5, 3], { ...state, first: numbers }, 1),
  },
  { name: "dropout", inputs: [{ shape: [3, 7, 5] }], build: (x) => dropout(x, 0.3, state, 4) },
];

/** All operations of this file. */
export const randomOps: readonly Op[] = [{ ...randomOp, cases: randomCases }];
