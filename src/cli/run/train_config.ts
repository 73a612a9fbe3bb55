/**
 * The configuration of a training from what is recorded, what `--config` names, and flags.
 *
 * @module
 */

import { toSnakeCase } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { type Fields, formatNetwork, parseNetwork } from "../../model/network.ts";
import { resizeNetwork } from "../../model/network.ts";
import { outputChannels } from "../../diffusion/prediction.ts";
import { formatSchedule, parseSchedule } from "../../diffusion/schedule.ts";
import {
  type LearningRateSchedule,
  parseTraining,
  type TrainingConfig,
} from "../../train/config.ts";
import { checkObjective } from "../../train/objective.ts";
import type { Dataset } from "../../data/dataset.ts";
import { imageFields, parseImages } from "../commands/image_options.ts";
import {
  architectureOf,
  DEFAULT_STEPS,
  describeDifference,
  formatRunConfig,
  presets,
  readRunFields,
  type RunConfig,
  type RunFields,
} from "./run_config.ts";
import type { RunFolder } from "./run_folder.ts";
import type { TrainFlags } from "../commands/train_flags.ts";

/** Where nothing else is said: a network for small grey pictures, and what it learns fastest with. */
const defaultOf = (given: RunFields, flags: TrainFlags): RunFields =>
  (flags.objective ?? given.training?.objective) === "classifier"
    ? presets.classifier
    : presets.mnist;

/** What --config gives, and the flags about data. */
export async function askedFor(flags: TrainFlags): Promise<RunFields> {
  const { data, images, ...rest } = flags.config ? await readRunFields(flags.config) : {};
  return { ...rest, data: flags.data ?? data, images: { ...images, ...imageFields(flags) } };
}

/** The recorded fields, where there are any, with the given ones over them. */
export const overlay = (recorded: RunFields | undefined, given: RunFields): RunFields => ({
  data: given.data ?? recorded?.data,
  steps: given.steps ?? recorded?.steps,
  // The fields of a network depend on each other, those of the other sections do not.
  images: { ...recorded?.images, ...given.images },
  network: given.network ?? recorded?.network,
  scheduler: { ...recorded?.scheduler, ...given.scheduler },
  training: { ...recorded?.training, ...given.training },
});

/** A whole configuration: the defaults, the fields that a file gives, then the flags. */
export function assembleConfig(
  given: RunFields,
  flags: TrainFlags,
  place: string,
  { shape, labels, classes }: Dataset,
): RunConfig {
  const scheduler = parseSchedule(given.scheduler ?? {}), [height, width, channels] = shape;
  const fields = given.network ?? defaultOf(given, flags).network!;
  const isClassifier = fields._class_name === presets.classifier.network!._class_name;
  const outChannels = isClassifier ? channels : outputChannels(scheduler, channels);
  const sizes = {
    in_channels: channels,
    ...(isClassifier
      ? { num_classes: classes?.length ?? countClasses("A classifier", place, labels) }
      : { out_channels: outChannels }),
    ...(flags["label-dropout"] === undefined
      ? {}
      : { num_class_embeds: countClasses("--label-dropout", place, labels) + 1 }),
  };
  const network = parseNetwork({ ...sizes, ...fields });
  const [h = height, w = width, inChannels] = network.itemShape.map((n) => n ?? undefined);
  const predicted = network.kind === "denoiser" ? network.outChannels : outChannels;
  if (inChannels !== channels || predicted !== outChannels) {
    throw new InputError(
      `Cannot train on ${place}: its images have ${channels} channels, but the network has ` +
        `in_channels ${inChannels} and out_channels ${predicted}` +
        ([1, 3].includes(inChannels!) ? `; --channels ${inChannels} makes them fit` : ""),
    );
  }
  if (h !== height || w !== width) {
    throw new InputError(
      `Cannot train on ${place}: its images are ${height}x${width}, but the sample_size of the ` +
        `network is ${h}x${w}; --size ${h === w ? w : `${w}x${h}`} makes them fit`,
    );
  }
  const training = assembleTraining(given, flags);
  checkObjective(training, scheduler, network);
  return {
    data: place,
    steps: flags.steps ?? given.steps ?? DEFAULT_STEPS,
    images: parseImages(given.images ?? {}),
    network: resizeNetwork(network, shape),
    scheduler,
    training,
  };
}

const assembleTraining = (given: RunFields, flags: TrainFlags): TrainingConfig =>
  parseTraining({
    ...(given.network ? {} : defaultOf(given, flags).training),
    ...given.training,
    ...trainingFlags(flags, flags.steps ?? given.steps ?? DEFAULT_STEPS),
  });

/** How many classes the data have, for what needs them. */
function countClasses(
  what: string,
  place: string,
  labels: ArrayLike<number> | undefined,
): number {
  if (!labels) throw new InputError(`${what} needs classes, but ${place} has no labels`);
  return Array.from(labels).reduce((most, c) => Math.max(most, c), 0) + 1;
}

/** What a training would be started with, but for what its data decide. */
export function planConfig(given: RunFields, flags: TrainFlags): RunFields {
  const { data } = given, fields = given.network ?? defaultOf(given, flags).network!;
  const network = formatNetwork(parseNetwork(fields));
  for (const name of ["sample_size", "in_channels", "out_channels", "num_classes"]) {
    if (!(name in fields)) delete network[name];
  }
  return {
    ...(data === undefined ? {} : { data }),
    steps: flags.steps ?? given.steps ?? DEFAULT_STEPS,
    images: parseImages(given.images ?? {}),
    network,
    scheduler: formatSchedule(parseSchedule(given.scheduler ?? {})),
    training: toSnakeCase(assembleTraining(given, flags)),
  };
}

/** Settings that flags give, by their names in files. */
function trainingFlags(flags: TrainFlags, steps: number): Fields {
  const fields: Record<string, unknown> = {};
  const names = [
    "batch-size",
    "micro-batch",
    "learning-rate",
    "precision",
    "objective",
    "label-dropout",
    "held-out",
    "seed",
  ];
  for (const name of names as (keyof TrainFlags)[]) {
    if (flags[name] !== undefined) fields[name.replaceAll("-", "_")] = flags[name];
  }
  return { ...fields, ...scheduleFlags(flags["learning-rate-schedule"], steps) };
}

function scheduleFlags(schedule: string | undefined, steps: number): Record<string, unknown> {
  if (schedule === undefined) return {};
  const decay = { constant: null, cosine: steps, step: Math.ceil(steps / 3) };
  const decay_steps = decay[schedule as LearningRateSchedule];
  return { learning_rate_schedule: schedule, decay_steps };
}

/** Flags and files may repeat what a training was started with, but not change it. */
export function checkUnchanged(config: RunConfig, wanted: RunConfig, folder: RunFolder): void {
  const sections = (c: RunConfig) => {
    const { images, scheduler, training } = formatRunConfig(c);
    return { ...images, ...architectureOf(c.network), ...scheduler, ...training };
  };
  const difference = describeDifference(
    ...[sections(config), folder.path] as const,
    ...[sections(wanted), "what is asked for now"] as const,
  );
  if (difference) throw new InputError(`Cannot go on: ${difference}`);
}
