/**
 * Parameters: their names, shapes and first values, and how they lie in one flat buffer. Networks
 * ask for a parameter where they use it, and that is the only place where its shape is written.
 *
 * @module
 */

import { philox, seedWords, toNormals, toUniform } from "../gpu/philox.ts";
import { type Shape, sizeOf } from "../gpu/shape.ts";
import { viewOf } from "../gpu/ops/concat.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { BINDING_ALIGNMENT } from "../gpu/wgsl/kernel.ts";

/** What a network says of a parameter that it uses. */
export interface ParameterSpec {
  /** As in files of diffusers, `conv_in.weight`. */
  readonly name: string;
  /** Its sizes here. */
  readonly shape: readonly number[];
  /**
   * How its axes lie here and in files: `conv` is `[height, width, in, out]` here and
   * `[out, in, height, width]` there, `linear` is `[in, out]` here and `[out, in]` there.
   */
  readonly order: "conv" | "linear" | "plain";
  /**
   * First values: `xavier` is U(±√(6 / (fan in + fan out))) as in the DDPM paper (Glorot and Bengio
   * 2010), `normal` is N(0, 1).
   */
  readonly init: "xavier" | "normal" | "zeros" | "ones";
  /** Whether training changes it. */
  readonly isTrained: boolean;
}

/** Gives a network the tensor of a parameter that it asks for. */
export type ParameterSource = (spec: ParameterSpec) => Tensor;

/** All parameters of a network in the order of their use, and where they lie in a flat array. */
export interface ParameterLayout {
  /** What the network says of each. */
  readonly specs: readonly ParameterSpec[];
  /** The element at which each starts. */
  readonly offsets: readonly number[];
  /** Elements in all, with the gaps between parameters. */
  readonly size: number;
  /** Numbers that are learnt or fixed, without the gaps between parameters. */
  readonly count: number;
}

/** Collects the parameters that a network asks for. */
export function collectParameters(
  network: (parameter: ParameterSource) => void,
  placeholder: (name: string, shape: Shape) => Tensor,
): ParameterLayout {
  const specs: ParameterSpec[] = [];
  network((spec) => {
    specs.push(spec);
    return placeholder(spec.name, spec.shape);
  });
  const offsets: number[] = [];
  let size = 0;
  for (const { shape } of specs) {
    offsets.push(size);
    size += Math.ceil(sizeOf(shape) / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;
  }
  return { specs, offsets, size, count: specs.reduce((n, s) => n + sizeOf(s.shape), 0) };
}

/** Views of a flat tensor as the parameters of a layout. */
export function viewParameters(layout: ParameterLayout, flat: Tensor): Map<string, Tensor> {
  return new Map(
    layout.specs.map((spec, i) => [spec.name, viewOf(flat, layout.offsets[i], spec.shape)]),
  );
}

/** A source that hands out tensors by name. */
export function sourceOf(parameters: ReadonlyMap<string, Tensor>): ParameterSource {
  return ({ name }) => {
    const found = parameters.get(name);
    if (!found) throw new TypeError(`The network has no parameter ${name}`);
    return found;
  };
}

/** First values of all parameters, flat; a pure function of the seed. */
export function initializeParameters(
  layout: ParameterLayout,
  seed: number,
): Float32Array<ArrayBuffer> {
  const flat = new Float32Array(layout.size), [low, high] = seedWords(seed);
  const words = new Uint32Array(4);
  layout.specs.forEach((spec, k) => {
    const values = flat.subarray(layout.offsets[k], layout.offsets[k] + sizeOf(spec.shape));
    if (spec.init === "ones") values.fill(1);
    if (spec.init === "ones" || spec.init === "zeros") return;
    const bound = xavierBound(spec);
    for (let i = 0; i < values.length; i += 4) {
      philox([i / 4, k, 0, INIT_STREAM], [low, high], words);
      const four = spec.init === "xavier"
        ? [...words].map((word) => (2 * toUniform(word) - 1) * bound)
        : [...toNormals(words[0], words[1]), ...toNormals(words[2], words[3])];
      values.set(four.slice(0, values.length - i), i);
    }
  });
  return flat;
}

/** Keeps initial weights apart from everything else that is drawn from a seed. */
const INIT_STREAM = 0x1417;

function xavierBound({ shape }: ParameterSpec): number {
  const receptive = sizeOf(shape.slice(0, -2));
  const [fanIn, fanOut] = shape.slice(-2).map((n) => n * receptive);
  return Math.sqrt(6 / (fanIn + fanOut));
}

/** The shape of a parameter in files. */
export function fileShape({ shape, order }: ParameterSpec): Shape {
  if (order === "conv") return [shape[3], shape[2], shape[0], shape[1]];
  return order === "linear" ? [shape[1], shape[0]] : shape;
}

/** Values in the order of files as values in the order used here. */
export function fromFileOrder(
  { shape, order }: ParameterSpec,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (order === "plain") return values;
  const [input, output] = shape.slice(-2), taps = sizeOf(shape.slice(0, -2));
  const out = new Float32Array(values.length);
  for (let o = 0, from = 0; o < output; o++) {
    for (let i = 0; i < input; i++) {
      for (let t = 0; t < taps; t++) out[(t * input + i) * output + o] = values[from++];
    }
  }
  return out;
}

/** Values in the order used here as values in the order of files. */
export function toFileOrder(
  { shape, order }: ParameterSpec,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (order === "plain") return values.slice();
  const [input, output] = shape.slice(-2), taps = sizeOf(shape.slice(0, -2));
  const out = new Float32Array(values.length);
  for (let o = 0, to = 0; o < output; o++) {
    for (let i = 0; i < input; i++) {
      for (let t = 0; t < taps; t++) out[to++] = values[(t * input + i) * output + o];
    }
  }
  return out;
}
