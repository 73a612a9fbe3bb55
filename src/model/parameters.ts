/**
 * Parameters: their names, shapes and first values, and how they lie in flat arrays and in the buffers
 * of devices. Networks ask for a parameter where they use it, and that is the only place where its
 * shape is written.
 *
 * @module
 */

import { groupBy } from "../ponyfills.ts";
import { fourNormals, philox, seedWords, toUniform } from "../gpu/philox.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { concat, viewOf } from "../gpu/ops/concat.ts";
import { after, reshape, slice, sliceOp, stopGradient } from "../gpu/ops/view.ts";
import { Scratch } from "../formats/bytes.ts";
import { type HalfType, widen, wordsOf } from "../gpu/ops/widen.ts";
import { type DType, input, type Tensor } from "../gpu/tensor.ts";

/** What a network says of a parameter that it uses. */
export interface ParameterSpec {
  /** As in files of diffusers, `conv_in.weight`. */
  readonly name: string;
  /** Its sizes here. */
  readonly shape: readonly number[];
  /**
   * How its axes lie here and in files: `conv` is `[height, width, in, out]` here and
   * `[out, in, height, width]` there, `linear` is `[out, in]` in both.
   */
  readonly order: "conv" | "linear" | "plain";
  /**
   * First values: `xavier` is U(±√(6 / (fan in + fan out))) as in the DDPM paper (Glorot and Bengio
   * 2010), `normal` is N(0, 1).
   */
  readonly init: "xavier" | "normal" | "zeros" | "ones";
  /** Whether training changes it. */
  readonly isTrained: boolean;
  /** Parameters of a family lie one behind the other, and are a single one along their first axis. */
  readonly family?: string | undefined;
}

/** Gives a network the tensor of a parameter that it asks for. */
export type ParameterSource = (spec: ParameterSpec) => Tensor;

/** Parameters under names that begin so, as those of a part of a network. */
export const below = (parameter: ParameterSource, prefix: string): ParameterSource => (spec) =>
  parameter({
    ...spec,
    name: `${prefix}.${spec.name}`,
    family: spec.family && `${prefix}.${spec.family}`,
  });

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
  /** Bytes of a {@linkcode Shard} at the most; a family that is larger has one of its own. */
  readonly shardBytes: number;
}

/** What every device can allocate, whatever its memory. */
const SHARD_BYTES = 2 ** 30;

/** Elements at multiples of which families start. Files of states have these gaps. */
const ALIGNMENT = 64;

/** Parameters that are read one by one, as from a file. */
export interface ParameterReader {
  /**
   * The numbers of a parameter, given its index in the layout.
   *
   * @param scratch Where they may be put, to be there until the next ones are.
   * @param into An array of their length to put them into, unless it is simpler to give another one.
   * @throws {InputError} If they cannot be read, or are not finite.
   */
  read(
    index: number,
    scratch?: Scratch,
    into?: Float32Array<ArrayBuffer>,
  ): Float32Array<ArrayBuffer>;
}

/** All parameters: as a flat array, or to be read. */
export type ParameterValues = Float32Array<ArrayBuffer> | ParameterReader;

/** The numbers of a parameter; with `scratch` they may be there only until the next ones are. */
export function readParameter(
  { specs, offsets }: ParameterLayout,
  values: ParameterValues,
  index: number,
  scratch?: Scratch,
  into?: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (!(values instanceof Float32Array)) return values.read(index, scratch, into);
  return values.subarray(offsets[index], offsets[index] + sizeOf(specs[index].shape));
}

/** All parameters in one array. */
export function flatten(
  layout: ParameterLayout,
  values: ParameterValues,
): Float32Array<ArrayBuffer> {
  if (values instanceof Float32Array) return values;
  const flat = new Float32Array(layout.size), scratch = new Scratch();
  layout.offsets.forEach((offset, i) => flat.set(values.read(i, scratch), offset));
  return flat;
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
  return layOut(specs);
}

/** The parameters of a network that some function of it asks for, without the others. */
export function usedParameters(
  { specs }: ParameterLayout,
  network: (parameter: ParameterSource) => void,
): ParameterLayout {
  const names = new Set<string>();
  network((spec) => {
    names.add(spec.name);
    return input(spec.name, spec.shape);
  });
  return layOut(specs.filter(({ name }) => names.has(name)));
}

/** Gives parameters their places. */
function layOut(specs: readonly ParameterSpec[]): ParameterLayout {
  const offsets: number[] = [];
  let size = 0;
  for (const members of families(specs)) {
    for (const i of members) {
      offsets[i] = size;
      size += sizeOf(specs[i].shape);
    }
    size = align(size);
  }
  const count = specs.reduce((n, s) => n + sizeOf(s.shape), 0);
  return { specs, offsets, size, count, shardBytes: SHARD_BYTES };
}

const align = (size: number) => Math.ceil(size / ALIGNMENT) * ALIGNMENT;

/** Indices of the parameters of each family; one without a family is one of its own. */
function families(specs: readonly ParameterSpec[]): Iterable<number[]> {
  return groupBy(specs.keys(), (i) => specs[i].family ?? specs[i].name).values();
}

/**
 * How weights lie on a device: `f16` and `bf16` take half the memory, and are widened where they are
 * used. Vectors, which are few, and weigh more than others, remain `f32`.
 */
export type WeightDType = "f32" | "f16" | "bf16";

/** Families that lie in one buffer of a device, one behind the other. */
export interface Shard {
  /** `i32` for words of two 16-bit floats each. */
  readonly dtype: DType;
  /** Elements, with the gaps between families. */
  readonly size: number;
  /** In order. */
  readonly families: readonly Family[];
}

/** Parameters that lie one behind the other. */
export interface Family {
  /** Their indices. */
  readonly members: readonly number[];
  /** Numbers of all of them. */
  readonly length: number;
  /** The element of the shard at which they start. */
  readonly offset: number;
}

/** The buffers that parameters lie in; those of `f32` are one after the other the flat array. */
export function shardsOf(
  { specs, shardBytes }: ParameterLayout,
  weightDType: WeightDType = "f32",
): Shard[] {
  const shards: { dtype: DType; size: number; families: Family[] }[] = [];
  for (const members of families(specs)) {
    const length = members.reduce((n, i) => n + sizeOf(specs[i].shape), 0);
    const isPacked = weightDType !== "f32" && specs[members[0]].shape.length > 1;
    const dtype = isPacked ? "i32" : "f32", size = align(isPacked ? wordsOf(length) : length);
    let shard = shards.findLast((shard) => shard.dtype === dtype);
    if (!shard || 4 * (shard.size + size) > shardBytes) {
      shards.push(shard = { dtype, size: 0, families: [] });
    }
    shard.families.push({ members, length, offset: shard.size });
    shard.size += size;
  }
  return shards;
}

/** The name of a shard's input or buffer: the first one has that of all. */
export const shardName = (name: string, k: number): string => k ? `${name}.${k}` : name;

/** An input for each shard. */
export const parameterInputs = (
  layout: ParameterLayout,
  name = "parameters",
  weightDType: WeightDType = "f32",
): Tensor[] =>
  shardsOf(layout, weightDType).map(({ size, dtype }, k) =>
    input(shardName(name, k), [size], dtype)
  );

/**
 * Views of shards as the parameters of a layout: those of a family are slices of one tensor, see
 * {@linkcode wholeOf}. What is not trained has no gradient.
 *
 * 16-bit floats are widened when they are first asked for, family by family, so that a program has
 * memory for those of a layer only while it computes the layer.
 *
 * @param event What they wait for: passes over different items share nothing that was widened.
 */
export function viewParameters(
  layout: ParameterLayout,
  shards: readonly Tensor[],
  { weightDType = "f32", event }: {
    readonly weightDType?: WeightDType | undefined;
    readonly event?: Tensor;
  } = {},
): (spec: Pick<ParameterSpec, "name">) => Tensor {
  const { specs } = layout, views = new Map<string, Tensor>();
  /** Adds the views of a family, given all of its numbers under a shape. */
  const add = (members: readonly number[], view: (shape: Shape) => Tensor) => {
    const { name, shape, isTrained } = specs[members[0]];
    if (members.length === 1) {
      views.set(name, isTrained ? view(shape) : stopGradient(view(shape)));
      return;
    }
    const rows = members.map((i) => specs[i].shape[0]), total = rows.reduce((a, b) => a + b);
    const whole = view(shape.with(0, total));
    let start = 0;
    members.forEach((i, at) => {
      views.set(specs[i].name, slice(whole, 0, start, rows[at]));
      start += rows[at];
    });
  };
  /** What adds the views of a family that is still packed. */
  const packed = new Map<string, () => void>();
  shardsOf(layout, weightDType).forEach(({ dtype, families }, k) => {
    for (const { members, offset, length } of families) {
      if (dtype === "f32") {
        add(members, (shape) => viewOf(shards[k], offset, shape));
        continue;
      }
      const unpack = () => {
        const waiting = event ? after(shards[k], event) : shards[k];
        const words = slice(waiting, 0, offset, wordsOf(length));
        const widened = widen(words, length, weightDType as HalfType);
        add(members, (shape) => reshape(widened, shape));
      };
      for (const i of members) packed.set(specs[i].name, unpack);
    }
  });
  return ({ name }) => {
    if (!views.has(name)) packed.get(name)?.();
    const found = views.get(name);
    if (!found) throw new TypeError(`The network has no parameter ${name}`);
    return found;
  };
}

/**
 * The tensor of all of a family, given its parameters in order: what they are slices of, or what they
 * make up where they are no views.
 */
export function wholeOf(members: readonly Tensor[]): Tensor {
  const [whole] = members[0].inputs, rows = members.reduce((n, { shape }) => n + shape[0], 0);
  const isWhole = members.every((x) => x.op === sliceOp && x.inputs[0] === whole);
  return isWhole && whole.shape[0] === rows ? whole : concat(members, 0);
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
        : fourNormals(words);
      values.set(four.slice(0, values.length - i), i);
    }
    if (spec.order === "linear") values.set(transpose(values, spec.shape[1], spec.shape[0]));
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
  return order === "conv" ? [shape[3], shape[2], shape[0], shape[1]] : shape;
}

/** Values in the order of files as values in the order used here. */
export function fromFileOrder(
  spec: ParameterSpec,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (spec.order !== "conv") return values;
  const out = new Float32Array(values.length);
  putRows(spec, values, 0, out);
  return out;
}

/** Numbers of a row of a file: of all that belongs to one channel of the result. */
export const rowOfFile = (spec: ParameterSpec): number => sizeOf(fileShape(spec).slice(1));

/** Puts some rows of a file, from one on, where they belong in the order used here. */
export function putRows(
  { shape, order }: ParameterSpec,
  rows: Float32Array<ArrayBuffer>,
  first: number,
  out: Float32Array<ArrayBuffer>,
): void {
  if (order !== "conv") return out.set(rows, first * sizeOf(shape.slice(1)));
  const [input, output] = shape.slice(-2), taps = sizeOf(shape.slice(0, -2));
  const count = rows.length / (input * taps);
  // Rows side by side: they are neighbours there.
  for (let i = 0; i < input; i++) {
    for (let t = 0; t < taps; t++) {
      const to = (t * input + i) * output + first;
      for (let o = 0, from = i * taps + t; o < count; o++, from += input * taps) {
        out[to + o] = rows[from];
      }
    }
  }
}

/** Values in the order used here as values in the order of files. */
export function toFileOrder(
  { shape, order }: ParameterSpec,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (order !== "conv") return values.slice();
  const [input, output] = shape.slice(-2), taps = sizeOf(shape.slice(0, -2));
  const out = new Float32Array(values.length);
  for (let o = 0, to = 0; o < output; o++) {
    for (let i = 0; i < input; i++) {
      for (let t = 0; t < taps; t++) out[to++] = values[(t * input + i) * output + o];
    }
  }
  return out;
}

/** A matrix of so many rows and columns, transposed. */
function transpose(
  values: Float32Array<ArrayBuffer>,
  rows: number,
  columns: number,
): Float32Array<ArrayBuffer> {
  return values.map((_, i) => values[i % rows * columns + Math.floor(i / rows)]);
}

/**
 * Flat parameters as they lay before there were families: in the order of their use, dense layers as
 * `[in, out]`. What does not fit is returned as it is.
 */
export function fromFormerLayout(
  { specs, offsets, size }: ParameterLayout,
  former: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const flat = new Float32Array(size);
  if (former.length !== specs.reduce((n, { shape }) => n + align(sizeOf(shape)), 0)) return former;
  let start = 0;
  specs.forEach(({ shape, order }, i) => {
    const values = former.slice(start, start + sizeOf(shape));
    flat.set(order === "linear" ? transpose(values, shape[1], shape[0]) : values, offsets[i]);
    start += align(values.length);
  });
  return flat;
}
