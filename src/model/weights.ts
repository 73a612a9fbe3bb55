/**
 * The weights of models as values of the inputs that networks read them from.
 *
 * @module
 */

import type { Model } from "./model.ts";
import { shardName, shardsOf } from "./parameters.ts";

/**
 * The weights of a model by the names of {@linkcode parameterInputs}.
 *
 * @param name That of the first shard.
 */
export function weightsOf(
  { network, parameters }: Pick<Model, "network" | "parameters">,
  name = "parameters",
): Record<string, Float32Array<ArrayBuffer>> {
  let start = 0;
  const shards = shardsOf(network.layout).map(({ size }, k) => {
    const values = parameters.subarray(start, start += size);
    return [shardName(name, k), values] as const;
  });
  return Object.fromEntries(shards);
}
