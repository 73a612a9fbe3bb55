/**
 * The configuration of a training: as a value, as a JSON file, and as presets.
 *
 * @module
 */

import { z } from "zod";
import { parseWith, toSnakeCase } from "../../config.ts";
import { InputError } from "../../errors.ts";
import {
  type Fields,
  formatNetwork,
  parseNetwork,
  type TrainableNetwork,
  trainableNetwork,
} from "../../model/network.ts";
import { foreignUNetFields, unetSchema } from "../../model/unet_config.ts";
import { FEATURE_CLASSIFIER, featureClassifierSchema } from "../../model/feature_classifier.ts";
import { autoencoderKlSchema } from "../../model/autoencoder_kl.ts";
import { vqModelSchema } from "../../model/vq_model.ts";
import { unetClassifierSchema } from "../../model/unet_classifier.ts";
import { TEXT_UNET, textUNetSchema } from "../../model/text_unet.ts";
import { SUPER_RESOLUTION, superResolutionSchema } from "../../model/super_resolution.ts";
import {
  formatSchedule,
  parseSchedule,
  type ScheduleConfig,
  scheduleSchema,
} from "../../diffusion/schedule.ts";
import { foreignScheduleFields } from "../../diffusion/schedulers.ts";
import { parseTraining, type TrainingConfig, trainingSchema } from "../../train/config.ts";
import { kindOf, readJson, refuseStdin } from "../terminal/files.ts";
import { suggest } from "../terminal/flags.ts";
import { type ImageOptions, imagesSchema, parseImages } from "../commands/image_options.ts";
import autoencoder from "./presets/autoencoder.json" with { type: "json" };
import cifar10 from "./presets/cifar10.json" with { type: "json" };
import classifier from "./presets/classifier.json" with { type: "json" };
import emoji from "./presets/emoji.json" with { type: "json" };
import features from "./presets/features.json" with { type: "json" };
import fashionMnist from "./presets/fashion-mnist.json" with { type: "json" };
import mnist from "./presets/mnist.json" with { type: "json" };
import tiny from "./presets/tiny.json" with { type: "json" };

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
  readonly network: TrainableNetwork;
  /** The noise; nothing for autoencoders, which see none. */
  readonly scheduler: ScheduleConfig;
  readonly training: TrainingConfig;
}

/** A configuration file; missing fields have their defaults. */
export interface RunFields {
  readonly data?: string | undefined;
  readonly steps?: number | undefined;
  readonly images?: Fields | undefined;
  readonly latent?: string | undefined;
  readonly network?: Fields | undefined;
  readonly scheduler?: Fields | undefined;
  readonly training?: Fields | undefined;
}

const section = z.record(z.string(), z.unknown()).optional();
const schema = z.strictObject({
  // For editors.
  $schema: z.string().optional(),
  ...{ data: z.string().optional(), steps: z.int().min(1).max(MAX_STEPS).optional() },
  latent: z.string().optional(),
  ...{ images: section, network: section, scheduler: section, training: section },
  // Its name in version 0.1.0.
  unet: section,
}).transform(({ unet, network = unet, $schema: _, ...rest }) => ({ ...rest, network }));

/** The presets. */
export const presets: Readonly<Record<string, RunFields>> = {
  mnist,
  "fashion-mnist": fashionMnist,
  cifar10,
  emoji,
  autoencoder,
  classifier,
  features,
  tiny,
};

/**
 * Reads a preset or a configuration file; its sections are not validated yet. Names of presets take
 * precedence: a file of the same name is `./NAME`.
 *
 * @throws {InputError} If it cannot be read or is not such a file.
 */
export async function readRunFields(place: string): Promise<RunFields> {
  refuseStdin(place, "a configuration");
  if (Object.hasOwn(presets, place)) return presets[place];
  if (!/[./\\]/.test(place) && await kindOf(place) === "nothing") {
    const names = Object.keys(presets);
    throw new InputError(
      `There is no configuration ${place}: give a file, or one of ${names.join(", ")}` +
        suggest(place, names),
    );
  }
  return parseWith(schema, await readJson(place), place);
}

/** @throws {InputError} If it is not a complete configuration. */
export async function readRunConfig(path: string): Promise<RunConfig> {
  const fields = parseWith(schema, await readJson(path), path);
  const { data, steps, images, latent, network, scheduler, training } = fields;
  if (data === undefined || !network || !scheduler || !training) {
    throw new InputError(`Cannot resume: ${path} is incomplete`);
  }
  return {
    ...{ data, steps: steps ?? DEFAULT_TRAINING_STEPS, images: parseImages(images ?? {}) },
    ...(latent === undefined ? {} : { latent }),
    network: trainableNetwork(parseNetwork(network)),
    ...{ scheduler: parseSchedule(scheduler), training: parseTraining(training) },
  };
}

/** The configuration as it is written to a file. */
export function formatRunConfig(
  config: RunConfig,
): Required<Omit<RunFields, "latent">> & Pick<RunFields, "latent"> {
  return {
    data: config.data,
    steps: config.steps,
    images: config.images,
    ...(config.latent === undefined ? {} : { latent: config.latent }),
    network: formatNetwork(config.network),
    scheduler: config.network.kind === "autoencoder" ? {} : formatSchedule(config.scheduler),
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

/** The JSON schema of configuration files, for editors. */
export function configSchema(): Record<string, unknown> {
  const section = (schema: z.ZodType) => {
    const options = { io: "input", unrepresentable: "any" } as const;
    const { $schema: _, ...rest } = z.toJSONSchema(schema, options);
    // Fields that start with an underscore are notes of other tools.
    return { ...rest, patternProperties: { "^_": {} } };
  };
  /** A section that files of diffusers may be, where null is "not given". */
  const shared = (schema: z.ZodType, foreign: readonly string[]) => {
    const { properties = {}, ...rest } = section(schema), names = Object.keys(properties);
    const fields = names.map((name) => [name, { anyOf: [properties[name], { type: "null" }] }]);
    const others = foreign.map((name) => [name, {}]);
    return { ...rest, properties: Object.fromEntries([...fields, ...others]) };
  };
  // Of the classes that the package brings; a UNet2DModel need not say so.
  const unet = unetSchema.extend({ _class_name: z.literal("UNet2DModel").optional() });
  const larger = superResolutionSchema.extend({ _class_name: z.literal(SUPER_RESOLUTION) });
  const reader = textUNetSchema.extend({ _class_name: z.literal(TEXT_UNET) });
  const judge = unetClassifierSchema.extend({ _class_name: z.literal("UNet2DClassifier") });
  const look = featureClassifierSchema.extend({ _class_name: z.literal(FEATURE_CLASSIFIER) });
  const kl = autoencoderKlSchema.extend({ _class_name: z.literal("AutoencoderKL") });
  const vq = vqModelSchema.extend({ _class_name: z.literal("VQModel") });
  const network = {
    anyOf: [
      ...[unet, larger, judge].map((s) => shared(s, foreignUNetFields)),
      ...[reader, look, kl, vq].map((s) => shared(s, [])),
    ],
  };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Configuration of ddpm train",
    type: "object",
    properties: {
      $schema: { type: "string" },
      data: { type: "string", description: "a data set's name, a folder or a file" },
      steps: { type: "integer", minimum: 1, maximum: MAX_STEPS },
      images: section(imagesSchema),
      latent: { type: "string", description: "an autoencoder, on whose latents to train" },
      ...{ network, unet: network },
      scheduler: shared(scheduleSchema, foreignScheduleFields),
      training: section(trainingSchema),
    },
    additionalProperties: false,
  };
}
