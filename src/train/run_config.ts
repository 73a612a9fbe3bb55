/**
 * The configuration of a training: as a value, and as JSON.
 *
 * @module
 */

import { z } from "zod";
import { parseWith, toSnakeCase } from "../config.ts";
import { type ImageOptions, parseImages } from "../data/image_options.ts";
import { formatSchedule, parseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import {
  type Fields,
  formatNetwork,
  isOfNoisyItems,
  parseNetwork,
  type TrainableNetwork,
  trainableNetwork,
} from "../model/network.ts";
import { parseTraining, type TrainingConfig } from "./config.ts";

/** The most training steps. */
export const MAX_STEPS = 100_000_000;
/** The default number of training steps. */
export const DEFAULT_TRAINING_STEPS = 5000;

/** The configuration of a training. */
export interface RunConfig {
  readonly data: string;
  /** The last step, which may be changed later. */
  readonly steps: number;
  readonly images: ImageOptions;
  /** The autoencoder whose latents are trained on, if it is not the images themselves. */
  readonly latent?: string | undefined;
  /** The model whose text encoder the training starts with. */
  readonly textEncoder?: string | undefined;
  readonly network: TrainableNetwork;
  /** The noise; nothing for networks that see none. */
  readonly scheduler: ScheduleConfig;
  readonly training: TrainingConfig;
}

/** A configuration file; missing fields have their defaults. */
export interface RunFields {
  readonly data?: string | undefined;
  readonly steps?: number | undefined;
  readonly images?: Fields | undefined;
  readonly latent?: string | undefined;
  readonly text_encoder?: string | undefined;
  readonly network?: Fields | undefined;
  readonly scheduler?: Fields | undefined;
  readonly training?: Fields | undefined;
}

const section = z.record(z.string(), z.unknown()).optional();
/** Of configuration files. */
export const runSchema = z.strictObject({
  // For editors.
  $schema: z.string().optional(),
  ...{ data: z.string().optional(), steps: z.int().min(1).max(MAX_STEPS).optional() },
  ...{ latent: z.string().optional(), text_encoder: z.string().optional() },
  ...{ images: section, network: section, scheduler: section, training: section },
  // Its name in version 0.1.0.
  unet: section,
}).transform(({ unet, network = unet, $schema: _, ...rest }) => ({ ...rest, network }));

/**
 * A complete configuration, of a training that goes on.
 *
 * @param what Where it is, for messages.
 * @throws {InputError} If it is none.
 */
export function parseRunConfig(json: unknown, what: string): RunConfig {
  const fields = parseWith(runSchema, json, what);
  const { data, steps, images, latent, text_encoder: textEncoder } = fields;
  const { network, scheduler, training } = fields;
  if (data === undefined || !network || !scheduler || !training) {
    throw new InputError(`Cannot resume: ${what} is incomplete`);
  }
  return {
    ...{ data, steps: steps ?? DEFAULT_TRAINING_STEPS, images: parseImages(images ?? {}) },
    ...(latent === undefined ? {} : { latent }),
    ...(textEncoder === undefined ? {} : { textEncoder }),
    network: trainableNetwork(parseNetwork(network)),
    ...{ scheduler: parseSchedule(scheduler), training: parseTraining(training) },
  };
}

/** Where there is what a training may be given. */
type Places = "latent" | "text_encoder";

/** The configuration as it is written to a file. */
export function formatRunConfig(
  config: RunConfig,
): Required<Omit<RunFields, Places>> & Pick<RunFields, Places> {
  return {
    data: config.data,
    steps: config.steps,
    images: config.images,
    ...(config.latent === undefined ? {} : { latent: config.latent }),
    ...(config.textEncoder === undefined ? {} : { text_encoder: config.textEncoder }),
    network: formatNetwork(config.network),
    scheduler: isOfNoisyItems(config.network) ? formatSchedule(config.scheduler) : {},
    training: toSnakeCase(config.training),
  };
}

/** The fields of a network that must agree with those of a state. */
export function architectureOf(network: TrainableNetwork): Fields {
  const { sample_size: _s, dropout: _d, scaling_factor: _f, ...rest } = formatNetwork(network);
  return rest;
}

/** Parses a section; empty if it is not one. */
export function parseFields(text: string | undefined): Fields {
  try {
    return Object(JSON.parse(text ?? "{}"));
  } catch {
    return {};
  }
}

/** "block_out_channels is [16] in A and [32] in B" for the first field of B that differs, or "". */
export function describeDifference(a: Fields, inA: string, b: Fields, inB: string): string {
  const text = (value: unknown) => JSON.stringify(value) ?? "not given";
  const field = Object.keys(b).find((key) => text(a[key]) !== text(b[key]));
  return field ? `${field} is ${text(a[field])} in ${inA} and ${text(b[field])} in ${inB}` : "";
}

/** What the card of a model says of its training: nothing that differs between equal trainings. */
export const cardOf = (
  { data, training }: Pick<RunConfig, "data" | "training">,
  step: number,
  device: string,
): Record<string, string> => ({
  data,
  steps: String(step),
  training: JSON.stringify(toSnakeCase(training)),
  device,
});
