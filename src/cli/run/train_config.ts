/**
 * The configuration of a training, assembled from the recorded one, `--config` and flags.
 *
 * @module
 */

import { toSnakeCase } from "../../config.ts";
import { InputError } from "../../errors.ts";
import {
  type Fields,
  formatNetwork,
  type Network,
  parseNetwork,
  type TrainableNetwork,
  trainableNetwork,
} from "../../model/network.ts";
import { resizeNetwork } from "../../model/network.ts";
import { autoencoderKl } from "../../model/autoencoder_kl.ts";
import { vqModel } from "../../model/vq_model.ts";
import { DUAL_ENCODER } from "../../model/dual_encoder.ts";
import { FEATURE_CLASSIFIER } from "../../model/feature_classifier.ts";
import { SUPER_RESOLUTION } from "../../model/super_resolution.ts";
import { outputChannels } from "../../diffusion/prediction.ts";
import { formatSchedule, parseSchedule, type ScheduleConfig } from "../../diffusion/schedule.ts";
import {
  type LearningRateSchedule,
  parseTraining,
  type TrainingConfig,
} from "../../train/config.ts";
import { checkObjective } from "../../train/objective.ts";
import type { Dataset } from "../../data/dataset.ts";
import { parseImages } from "../../data/image_options.ts";
import { imageFields } from "../commands/image_options.ts";
import {
  architectureOf,
  DEFAULT_TRAINING_STEPS,
  describeDifference,
  formatRunConfig,
  type RunConfig,
  type RunFields,
} from "../../train/run_config.ts";
import { presets, readRunFields } from "./run_config.ts";
import type { RunFolder } from "./run_folder.ts";
import type { TrainFlags } from "../commands/train_flags.ts";

/**
 * The fields of a configuration that says nothing of a network: a network for small images with its
 * best settings, of the kind that is asked for.
 *
 * @param textEncoder The network with the text encoder that it starts with.
 */
function withDefaults(given: RunFields, flags: TrainFlags, textEncoder?: Network): RunFields {
  if (given.network) return given;
  const objective = flags.objective ?? given.training?.objective;
  const { network, scheduler = {}, training } = objective === "classifier"
    ? presets.classifier
    : objective === "autoencoder"
    ? presets.autoencoder
    : objective === "contrastive"
    ? presets["dual-encoder"]
    : given.images?.captions
    ? presets.emoji
    : presets.mnist;
  const { loss_weighting, snr_gamma, ...rest } = training!;
  // Weights go with the prediction that they were chosen for; bounds have their own.
  const isWeighted = loss_weighting !== undefined && !given.scheduler &&
    objective !== "vlb" && objective !== "hybrid";
  return {
    ...{ ...given, scheduler: given.scheduler ?? scheduler },
    network: textEncoder && network!.text_encoder
      ? { ...network, text_encoder: textEncoder.config.text_encoder }
      : network,
    training: { ...rest, ...(isWeighted ? { loss_weighting, snr_gamma } : {}), ...given.training },
  };
}

/** Classes of networks that tell classes apart. */
const CLASSIFIERS = [presets.classifier, presets.features].map(({ network }) =>
  network!._class_name
);

/** Classes of networks that see no noise, and what these are called. */
const NOISELESS: ReadonlyMap<unknown, string> = new Map([
  ...[autoencoderKl, vqModel].map(({ className }) => [className, "autoencoders"] as const),
  [DUAL_ENCODER, "dual encoders"],
]);

/** Classes of networks whose last layers are for pictures of one size. */
const OF_ONE_SIZE: readonly unknown[] = [FEATURE_CLASSIFIER, DUAL_ENCODER];

/** The fields of --config, with the flags about data applied. */
export async function askedFor(flags: TrainFlags): Promise<RunFields> {
  const { data, images, ...rest } = flags.config ? await readRunFields(flags.config) : {};
  const { latent = rest.latent, "text-encoder": text_encoder = rest.text_encoder } = flags;
  return {
    ...rest,
    ...(latent === undefined ? {} : { latent }),
    ...(text_encoder === undefined ? {} : { text_encoder }),
    data: flags.data ?? data,
    images: { ...images, ...imageFields(flags) },
  };
}

/** The recorded fields, if any, overridden by the given ones. */
export const overlay = (recorded: RunFields | undefined, given: RunFields): RunFields => ({
  data: given.data ?? recorded?.data,
  steps: given.steps ?? recorded?.steps,
  // The fields of a network depend on each other, those of the other sections do not.
  images: { ...recorded?.images, ...given.images },
  latent: given.latent ?? recorded?.latent,
  text_encoder: given.text_encoder ?? recorded?.text_encoder,
  network: given.network ?? recorded?.network,
  scheduler: { ...recorded?.scheduler, ...given.scheduler },
  training: { ...recorded?.training, ...given.training },
});

/** A complete configuration: defaults, overridden by the fields of a file, then by flags. */
export function assembleConfig(
  asked: RunFields,
  flags: TrainFlags,
  place: string,
  { shape, labels, classes, labelProblem }: Dataset,
  textEncoder?: Network,
): RunConfig {
  const given = withDefaults(asked, flags, textEncoder), fields = networkFields(given, flags);
  const scheduler = scheduleOf(given), [height, width, channels] = shape;
  const isClassifier = CLASSIFIERS.some((name) => name === fields._class_name);
  const noiseless = NOISELESS.get(fields._class_name), predictsNoise = !isClassifier && !noiseless;
  const outChannels = predictsNoise ? outputChannels(scheduler, channels) : channels;
  if (noiseless && Object.keys(given.scheduler ?? {}).length) {
    throw new InputError(
      `Cannot train ${fields._class_name} with a scheduler: ${noiseless} see no noise; leave it out`,
    );
  }
  const sizes = {
    in_channels: channels,
    ...(OF_ONE_SIZE.includes(fields._class_name) ? { sample_size: [height, width] } : {}),
    ...(isClassifier
      ? {
        num_classes: classes?.length ?? countClasses("A classifier", place, labels, labelProblem),
      }
      : fields._class_name === DUAL_ENCODER
      ? {}
      : { out_channels: outChannels }),
    ...(flags["label-dropout"] === undefined || noiseless ? {} : {
      num_class_embeds: countClasses("--label-dropout", place, labels, labelProblem) + 1,
    }),
  };
  const network = trainableNetwork(parseNetwork({ ...sizes, ...fields }));
  const items = given.latent === undefined ? "images" : "latents";
  const [h = height, w = width, inChannels] = network.itemShape.map((n) => n ?? undefined);
  const predicted = network.kind === "denoiser" ? network.outChannels : outChannels;
  if (inChannels !== channels || predicted !== outChannels) {
    throw new InputError(
      `Cannot train on ${place}: its ${items} have ${channels} channels, but the network has ` +
        `in_channels ${inChannels} and out_channels ${predicted}` +
        (items === "images" && [1, 3].includes(inChannels!)
          ? `; --channels ${inChannels} makes them fit`
          : ""),
    );
  }
  if (h !== height || w !== width) {
    throw new InputError(
      `Cannot train on ${place}: its ${items} are ${height}x${width}, but the sample_size of the ` +
        `network is ${h}x${w}` +
        (items === "images" ? `; --size ${h === w ? w : `${w}x${h}`} makes them fit` : ""),
    );
  }
  const training = assembleTraining(given, flags);
  checkObjective(training, scheduler, network);
  if (given.latent !== undefined) checkLatent(network, training);
  if (textEncoder) checkTextEncoder(network, textEncoder, given.text_encoder!);
  return {
    data: place,
    steps: flags.steps ?? given.steps ?? DEFAULT_TRAINING_STEPS,
    images: parseImages(given.images ?? {}),
    ...(given.latent === undefined ? {} : { latent: given.latent }),
    ...(given.text_encoder === undefined ? {} : { textEncoder: given.text_encoder }),
    network: resizeNetwork(network, shape),
    scheduler,
    training,
  };
}

/** The noise; latents, of which most are beyond [-1, 1], are not clipped to that. */
function scheduleOf({ latent, scheduler = {} }: RunFields): ScheduleConfig {
  if (latent === undefined) return parseSchedule(scheduler);
  const clips = (["clip_sample", "thresholding"] as const).find((name) => scheduler[name] === true);
  if (clips) {
    throw new InputError(
      `Cannot train on latents with ${clips}, which is for images; leave it out`,
    );
  }
  return parseSchedule({ ...scheduler, clip_sample: false });
}

/** @throws {InputError} If a network, or an objective, is for images and not for latents. */
function checkLatent(network: TrainableNetwork, { objective }: TrainingConfig): void {
  const refuse = (what: string) =>
    new InputError(`Cannot train ${what} on latents: they are for denoisers, by mse, l1 or huber`);
  if (network.kind !== "denoiser" || network.derived) throw refuse(network.className);
  if (!["mse", "l1", "huber"].includes(objective)) throw refuse(`by ${objective}`);
}

/** @throws {InputError} If a network cannot start with the text encoder of another one. */
function checkTextEncoder(network: Network, { config }: Network, place: string): void {
  const refuse = (why: string) =>
    new InputError(`Cannot start with the text encoder of ${place}: ${why}`);
  const [there, here] = [config, network.config].map((fields) => fields.text_encoder as Fields);
  if (!here) {
    throw refuse(`${network.className} has none; --captions trains a network that has`);
  }
  const difference = describeDifference(there, place, here, "the network");
  if (difference) throw refuse(difference);
}

/**
 * The fields of the network, of the class that an objective wants.
 *
 * @throws {InputError} If there is a factor of nothing.
 */
function networkFields(given: RunFields, flags: TrainFlags): Fields {
  const { objective, factor } = flags, network = given.network!;
  if (objective === "super-resolution") {
    const kept = network._class_name === SUPER_RESOLUTION ? network.factor : undefined;
    return { ...network, _class_name: SUPER_RESOLUTION, factor: factor ?? kept ?? 2 };
  }
  if (factor === undefined) return network;
  throw new InputError("--factor goes with --objective super-resolution");
}

const assembleTraining = (given: RunFields, flags: TrainFlags): TrainingConfig =>
  parseTraining({
    ...given.training,
    ...trainingFlags(flags, flags.steps ?? given.steps ?? DEFAULT_TRAINING_STEPS),
  });

/** How many classes the data have, for what needs them. */
function countClasses(
  what: string,
  place: string,
  labels: ArrayLike<number> | undefined,
  problem: string | undefined,
): number {
  if (!labels) {
    throw new InputError(
      `${what} needs classes, but ${place} has no labels${problem ? `: ${problem}` : ""}`,
    );
  }
  return Array.from(labels).reduce((most, c) => Math.max(most, c), 0) + 1;
}

/** The configuration that a training would start with, without what depends on its data. */
export function planConfig(
  asked: RunFields,
  flags: TrainFlags,
  textEncoder?: Network,
): RunFields {
  const given = withDefaults(asked, flags, textEncoder),
    { data } = given,
    fields = networkFields(given, flags);
  const network = formatNetwork(parseNetwork(fields));
  for (const name of ["sample_size", "in_channels", "out_channels", "num_classes"]) {
    if (!(name in fields)) delete network[name];
  }
  return {
    ...(data === undefined ? {} : { data }),
    steps: flags.steps ?? given.steps ?? DEFAULT_TRAINING_STEPS,
    images: parseImages(given.images ?? {}),
    ...(given.latent === undefined ? {} : { latent: given.latent }),
    ...(given.text_encoder === undefined ? {} : { text_encoder: given.text_encoder }),
    network,
    scheduler: NOISELESS.has(fields._class_name) ? {} : formatSchedule(scheduleOf(given)),
    training: toSnakeCase(assembleTraining(given, flags)),
  };
}

/** Training settings from flags, by their names in files. */
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
  // That is what the network is for, whatever the loss.
  if (fields.objective === "super-resolution") delete fields.objective;
  return { ...fields, ...scheduleFlags(flags["learning-rate-schedule"], steps) };
}

function scheduleFlags(schedule: string | undefined, steps: number): Record<string, unknown> {
  if (schedule === undefined) return {};
  const decay = { constant: null, cosine: steps, step: Math.ceil(steps / 3) };
  const decay_steps = decay[schedule as LearningRateSchedule];
  return { learning_rate_schedule: schedule, decay_steps };
}

/** On --resume, flags and files may repeat the settings of a training but not change them. */
export function checkUnchanged(config: RunConfig, wanted: RunConfig, folder: RunFolder): void {
  // Sections have fields of the same name: images and schedules both have a shift.
  const sections = (c: RunConfig): Fields[] => {
    const { latent, text_encoder, images, scheduler, training } = formatRunConfig(c);
    return [{ latent, text_encoder }, images!, architectureOf(c.network), scheduler!, training!];
  };
  const there = sections(config), here = sections(wanted);
  for (const [i, section] of there.entries()) {
    const difference = describeDifference(section, folder.path, here[i], "this command");
    if (difference) throw new InputError(`Cannot resume: ${difference}`);
  }
}
