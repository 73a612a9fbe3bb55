/**
 * A network small enough for adapters in software.
 *
 * @module
 */

import { initializeModel, type LoadedModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";

/** It has weights that are not zero, so that all of it has a say. */
export function tinyModel(): LoadedModel {
  const network = parseNetwork({
    ...{ sample_size: 16, in_channels: 1, out_channels: 1, layers_per_block: 1 },
    ...{ block_out_channels: [8, 16], norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
  });
  const model = initializeModel(network, {}, 3);
  model.parameters.forEach((_, i) => model.parameters[i] += 0.02 * Math.sin(i));
  return model;
}
