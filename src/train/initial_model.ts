/**
 * The model that a training starts with, and what its classes are called.
 *
 * @module
 */

import type { Dataset } from "../data/dataset.ts";
import { formatSchedule } from "../diffusion/schedule.ts";
import {
  type AutoencoderModel,
  type DualEncoderModel,
  initializeModel,
  type Trainable,
} from "../model/model.ts";
import { type AutoencoderNetwork, isOfNoisyItems } from "../model/network.ts";
import { initializeNetwork, type Weighted } from "../model/weights.ts";
import type { RunConfig } from "./run_config.ts";

/**
 * The model that a training starts with.
 *
 * @param autoencoder That of the latents that it is trained on.
 */
export function initialModel(
  { network, scheduler, training }: RunConfig,
  data: Pick<Dataset, "shape" | "classes">,
  autoencoder?: Weighted<AutoencoderNetwork>,
): Trainable {
  if (!isOfNoisyItems(network)) {
    return { ...initializeNetwork(network, training.seed), card: {} } as
      | AutoencoderModel
      | DualEncoderModel;
  }
  const model = initializeModel(
    ...[network, formatSchedule(scheduler), training.seed] as const,
    classNames(
      data,
      network.kind === "classifier"
        ? network.classes
        : network.conditions(data.shape).labels?.below,
      training.labelDropout,
    ),
  );
  return { ...model, ...(autoencoder ? { autoencoder } : {}) };
}

/**
 * What a network's classes are called: as those of the data, their numbers where they have no names.
 * Without the last of them, if that stands for "none".
 */
function classNames(
  { classes }: Pick<Dataset, "classes">,
  below: number | undefined,
  labelDropout: number,
): string[] | undefined {
  if (below === undefined) return undefined;
  return Array.from(
    { length: labelDropout ? below - 1 : below },
    (_, c) => classes?.[c] ?? String(c),
  );
}
