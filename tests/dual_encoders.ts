/**
 * A tiny dual encoder for tests.
 *
 * @module
 */

import { type DualEncoderNetwork, dualEncoderNetwork } from "../src/model/dual_encoder.ts";
import { parseNetwork } from "../src/model/network.ts";

/** Its configuration, as in files. */
export const tinyDualEncoder = {
  ...{ _class_name: "DualEncoder", sample_size: [5, 6], in_channels: 2 },
  ...{ block_out_channels: [3, 4], projection_dim: 4 },
  text_encoder: { max_length: 6, width: 8, layers: 1, heads: 2 },
};

/** The network, with other fields where they are given. */
export const tinyDualNetwork = (fields: object = {}): DualEncoderNetwork =>
  dualEncoderNetwork(parseNetwork({ ...tinyDualEncoder, ...fields }));
