/**
 * The weights of models as values of the inputs that networks read them from.
 *
 * @module
 */

import type { WeightParts, WeightValues } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import { packHalves } from "../gpu/ops/widen.ts";
import { encodeHalves } from "../formats/elements.ts";
import {
  type ParameterLayout,
  type ParameterValues,
  readParameter,
  type Shard,
  shardName,
  shardsOf,
  type WeightDType,
} from "./parameters.ts";

/** Parameters and their places, as every model and network of any kind has them. */
interface Weighted {
  readonly network: { readonly layout: ParameterLayout };
  readonly parameters: ParameterValues;
}

/**
 * The weights of a model by the names of {@linkcode parameterInputs}.
 *
 * @param name That of the first shard.
 */
export function weightsOf(
  model: Weighted,
  name = "parameters",
  weightDType: WeightDType = "f32",
): Record<string, WeightValues> {
  const shards = shardsOf(model.network.layout, weightDType), { parameters } = model;
  let start = 0;
  const values = shards.map((shard, k): [string, WeightValues] => [
    shardName(name, k),
    weightDType === "f32" && parameters instanceof Float32Array
      ? parameters.subarray(start, start += shard.size)
      : { dtype: shard.dtype, length: shard.size, parts: () => partsOf(model, shard, weightDType) },
  ]);
  return Object.fromEntries(values);
}

/** The values of a shard, one parameter or packed family after the other. */
function* partsOf(
  { network: { layout }, parameters }: Weighted,
  { dtype, families }: Shard,
  weightDType: WeightDType,
): ReturnType<WeightParts["parts"]> {
  const { specs } = layout, fileDType = weightDType === "f16" ? "F16" : "BF16";
  for (const { members, length, offset } of families) {
    const bits = new Uint16Array(dtype === "i32" ? length : 0);
    let at = 0;
    for (const i of members) {
      const values = readParameter(layout, parameters, i);
      if (dtype === "f32") yield [offset + at, values];
      else {
        const halves = encodeHalves(fileDType, values);
        if (!halves) {
          throw new InputError(
            `Cannot keep weights as ${weightDType}: ${
              specs[i].name
            } holds numbers beyond its range`,
          );
        }
        bits.set(halves, at);
      }
      at += values.length;
    }
    if (dtype === "i32") yield [offset, packHalves(bits)];
  }
}
