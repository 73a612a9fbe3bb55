/**
 * What the page trains, and how.
 *
 * @module
 */

import type { WorkerTrainerOptions } from "../worker/protocol.ts";

/** Fewer pictures than these are moved about, so that they are not all that is learnt. */
const FEW = 100;

/** A small network for small pictures. */
export const trainingOptions = (
  channels: number,
  side: number,
  count: number,
  classes = 0,
): WorkerTrainerOptions => ({
  network: {
    block_out_channels: [channels, 2 * channels, 4 * channels],
    down_block_types: ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    ...{ layers_per_block: 1, norm_num_groups: 8, freq_shift: 1, flip_sin_to_cos: false },
    // One more for none.
    ...(classes ? { num_class_embeds: classes + 1 } : {}),
  },
  scheduler: { prediction_type: "v_prediction" },
  training: {
    ...{ batch_size: 16, learning_rate: 0.001, warmup_steps: 50 },
    ...{ loss_weighting: "min_snr", snr_gamma: 5 },
    ...(classes ? { label_dropout: 0.1 } : {}),
  },
  images: { shift: count < FEW ? Math.round(side / 14) : 0 },
});
