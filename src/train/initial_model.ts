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
import { flatten } from "../model/parameters.ts";
import { initializeNetwork, selectParameters, type Weighted } from "../model/weights.ts";
import type { RunConfig } from "./run_config.ts";

/** What a training is given that was trained before. */
export interface Pretrained {
  /** That of the latents that it is trained on. */
  readonly autoencoder?: Weighted<AutoencoderNetwork> | undefined;
  /** A network with the text encoder that it starts with. */
  readonly textEncoder?: Weighted | undefined;
}

/** The model that a training starts with. */
export function initialModel(
  config: RunConfig,
  data: Pick<Dataset, "shape" | "classes">,
  { autoencoder, textEncoder }: Pretrained = {},
): Trainable {
  const model = initialize(config, data);
  const parameters = textEncoder ? withTextEncoder(model, textEncoder) : model.parameters;
  return { ...model, parameters, ...(autoencoder ? { autoencoder } : {}) } as Trainable;
}

/** A model of random weights. */
function initialize(
  { network, scheduler, training }: RunConfig,
  data: Pick<Dataset, "shape" | "classes">,
): Trainable {
  if (!isOfNoisyItems(network)) {
    return { ...initializeNetwork(network, training.seed), card: {} } as
      | AutoencoderModel
      | DualEncoderModel;
  }
  return initializeModel(
    ...[network, formatSchedule(scheduler), training.seed] as const,
    classNames(
      data,
      network.kind === "classifier"
        ? network.classes
        : network.conditions(data.shape).labels?.below,
      training.labelDropout,
    ),
  );
}

/** The parameters of a network, with those of the text encoder of another one. */
function withTextEncoder({ network: { layout }, parameters }: Weighted, from: Weighted) {
  const values = flatten(layout, parameters).slice(), there = selectParameters(from, layout);
  layout.specs.forEach(({ name }, i) => {
    if (name.startsWith("text_encoder.")) values.set(there.read(i), layout.offsets[i]);
  });
  return values;
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
