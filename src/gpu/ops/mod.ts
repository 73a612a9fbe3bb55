/**
 * All operations, for the tests and benchmarks that run every one of them.
 *
 * @module
 */

import type { Op } from "../op.ts";
import { attentionOps } from "./attention.ts";
import { concatOp, packOp } from "./concat.ts";
import { convOps } from "./conv2d.ts";
import { gatherOps } from "./gather.ts";
import { groupNormOps } from "./group_norm.ts";
import { layerNormOps } from "./layer_norm.ts";
import { mapOps } from "./map.ts";
import { matmulOps } from "./matmul.ts";
import { nearestOps } from "./nearest.ts";
import { poolOps } from "./pool.ts";
import { quantileOps } from "./quantile.ts";
import { randomOps } from "./random.ts";
import { softmaxOps } from "./softmax.ts";
import { sumOp } from "./sum.ts";
import { viewOps } from "./view.ts";

/** Every operation there is. */
export const ops: readonly Op[] = [
  ...viewOps,
  ...mapOps,
  sumOp,
  concatOp,
  packOp,
  ...matmulOps,
  ...convOps,
  ...groupNormOps,
  ...layerNormOps,
  ...softmaxOps,
  ...attentionOps,
  ...gatherOps,
  ...nearestOps,
  ...poolOps,
  ...quantileOps,
  ...randomOps,
];
