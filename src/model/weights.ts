/**
 * Networks with their weights, and weights as values of the inputs that networks read them from.
 *
 * @module
 */

import type { Place, WeightParts, WeightValues } from "../diffusion/weights.ts";
import { Scratch } from "../formats/bytes.ts";
import { InputError } from "../errors.ts";
import { putHalves, wordsOf } from "../gpu/ops/widen.ts";
import { encodeHalves } from "../formats/elements.ts";
import type { FileTensor } from "../formats/safetensors.ts";
import { sizeOf } from "../shape.ts";
import { parametersFrom } from "./tensors.ts";
import type { Network } from "./network.ts";
import {
  initializeParameters,
  type ParameterLayout,
  type ParameterReader,
  type ParameterValues,
  readParameter,
  type Shard,
  shardName,
  shardsOf,
  type WeightDType,
} from "./parameters.ts";

/** A network of any kind with its parameters, as every model is one. */
export interface Weighted<N extends { readonly layout: ParameterLayout } = Network> {
  /** The architecture, and where each parameter lies in `parameters`. */
  readonly network: N;
  /** All parameters: flat, or to be read one by one. */
  readonly parameters: ParameterValues;
}

/**
 * A network and the tensors of a file, under diffusers' names, present or past; their numbers are read
 * when they are needed.
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If a tensor is missing, superfluous or wrongly shaped.
 *
 * @example An autoencoder in a folder of diffusers
 * ```ts
 * import { assembleNetwork, autoencoderNetwork, parseNetwork, readTensorFile } from "@x/ddpm";
 *
 * async function load(config: unknown, file: Uint8Array<ArrayBuffer>) {
 *   const { tensors } = await readTensorFile(file);
 *   return assembleNetwork(autoencoderNetwork(parseNetwork(config)), tensors, "the autoencoder");
 * }
 * console.log(load.name);
 * ```
 */
export const assembleNetwork = <N extends Network>(
  network: N,
  tensors: ReadonlyMap<string, FileTensor>,
  what: string,
): Weighted<N> => ({ network, parameters: parametersFrom(network.layout, tensors, what) });

/**
 * A network of any kind with first values of its parameters, those that {@linkcode initializeModel}
 * gives.
 */
export const initializeNetwork = <N extends Network>(network: N, seed: number): Weighted<N> => ({
  network,
  parameters: initializeParameters(network.layout, seed),
});

/** Some of the parameters of a network under a layout of their own, as {@linkcode usedParameters} makes it. */
export function selectParameters(
  { network: { layout }, parameters }: AnyWeighted,
  part: ParameterLayout,
): ParameterReader {
  const indices = new Map(layout.specs.map(({ name }, i) => [name, i]));
  return {
    read: (index, ...where) =>
      readParameter(layout, parameters, indices.get(part.specs[index].name)!, ...where),
  };
}

/** Parameters and their places. */
type AnyWeighted = Weighted<{ readonly layout: ParameterLayout }>;

/**
 * The weights of a model by the names of {@linkcode parameterInputs}.
 *
 * @param name That of the first shard.
 */
export function weightsOf(
  model: AnyWeighted,
  name = "parameters",
  weightDType: WeightDType = "f32",
): Record<string, WeightValues> {
  const shards = shardsOf(model.network.layout, weightDType), { parameters } = model;
  let start = 0;
  const values = shards.map((shard, k): [string, WeightValues] => [
    shardName(name, k),
    weightDType === "f32" && parameters instanceof Float32Array
      ? parameters.subarray(start, start += shard.size)
      : {
        dtype: shard.dtype,
        length: shard.size,
        parts: (place) => partsOf(model, shard, weightDType, place),
      },
  ]);
  return Object.fromEntries(values);
}

/** Numbers that are rounded at a time. */
const PIECE = 2 ** 20;

/** Words for so many halves: where they belong, or elsewhere. */
const wordsIn = (place: Place, offset: number, length: number) =>
  place(offset, wordsOf(length)) as Int32Array<ArrayBuffer> ??
    new Int32Array(wordsOf(length));

/** The values of a shard, one parameter or packed family after the other. */
function* partsOf(
  { network: { layout }, parameters }: AnyWeighted,
  { dtype, families }: Shard,
  weightDType: WeightDType,
  place: Place = () => undefined,
): ReturnType<WeightParts["parts"]> {
  const { specs } = layout,
    scratch = new Scratch(),
    fileDType = weightDType === "f16" ? "F16" : "BF16";
  for (const { members, length, offset } of families) {
    const words = dtype === "i32" ? wordsIn(place, offset, length) : undefined;
    let at = 0;
    for (const i of members) {
      const size = sizeOf(specs[i].shape);
      const into = words ? undefined : place(offset + at, size) as Float32Array<ArrayBuffer>;
      const values = readParameter(layout, parameters, i, scratch, into);
      if (!words) yield [offset + at, values];
      else {for (let first = 0; first < size; first += PIECE) {
          const halves = encodeHalves(fileDType, values.subarray(first, first + PIECE));
          if (!halves) {
            throw new InputError(
              `Cannot keep weights as ${weightDType}: ${
                specs[i].name
              } holds numbers beyond its range`,
            );
          }
          putHalves(words, length, at + first, halves);
        }}
      at += size;
    }
    if (words) yield [offset, words];
  }
}
