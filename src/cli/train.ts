/**
 * `ddpm train`: a model from pictures.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { parseUNetConfig } from "../model/config.ts";
import { initializeModel, type Model } from "../model/model.ts";
import { outputChannels } from "../model/prediction.ts";
import { formatSchedule, parseSchedule } from "../model/schedule.ts";
import { type LearningRateSchedule, parseTraining } from "../train/config.ts";
import type { Dataset } from "../train/dataset.ts";
import { HISTORY } from "../train/step.ts";
import { Trainer } from "../train/trainer.ts";
import { openDataset, type ReadOptions } from "./data.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "./device.ts";
import { type Flag, type Flags, parseFlags } from "./flags.ts";
import { imageFields, imageFlags, parseImages } from "./image_options.ts";
import { knownData } from "./known_data.ts";
import { preparePictures } from "./pictures.ts";
import { debugProgram, profileTraining } from "./profile.ts";
import { formatBytes, print, Progress } from "./progress.ts";
import {
  architectureOf,
  describeDifference,
  formatRunConfig,
  readRunFields,
  type RunConfig,
  type RunFields,
  RunFolder,
} from "./run_folder.ts";
import { isWide, runWide } from "./wide.ts";
import { createRun, trainUntil } from "./train_loop.ts";

/** Steps where nobody says how many: in all, between lines of the log, between checkpoints. */
const USUAL = { steps: 5000, logEvery: 50, saveEvery: 500 };
/** The most that a number of steps can be. */
const MAX_STEPS = 100_000_000;

/** What `train` understands. */
export const trainFlags = {
  data: {
    kind: "text",
    value: "DATA",
    help: "mnist, fashion-mnist, cifar10, emoji, a folder of images, or a file: IDX, zip, tar, npz",
  },
  ...imageFlags,
  out: { kind: "text", value: "FOLDER", help: "where everything is written" },
  config: {
    kind: "text",
    value: "FILE",
    help: "JSON with unet, scheduler and training, as in a run's config.json",
  },
  steps: { kind: "integer", min: 1, max: MAX_STEPS, help: `steps in all; default ${USUAL.steps}` },
  "batch-size": { kind: "integer", min: 1, max: 65536, help: "images a step; default 64" },
  "learning-rate": {
    kind: "number",
    min: 0,
    max: 1,
    help: "default 0.001, with a network of --config 0.0002",
  },
  "learning-rate-schedule": {
    kind: "text",
    choices: ["constant", "cosine", "step"] satisfies LearningRateSchedule[],
    value: "NAME",
    help: "constant, cosine (to 0 at --steps), or step (to a tenth at each third of them)",
  },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "of weights, order and noise; default 0",
  },
  "log-every": {
    kind: "integer",
    min: 1,
    max: HISTORY,
    help: `steps between lines of the log; default ${USUAL.logEvery}`,
  },
  "save-every": {
    kind: "integer",
    min: 1,
    max: MAX_STEPS,
    help: `steps between checkpoints and sample grids; default ${USUAL.saveEvery}`,
  },
  half: { kind: "switch", help: "write the model in 16-bit floats, half the size" },
  profile: {
    kind: "integer",
    min: 1,
    max: 1000,
    help: "only tell where the time of a step goes, from as many steps; writes nothing",
  },
  resume: { kind: "switch", help: "go on where the training in FOLDER stopped" },
  ...deviceFlags,
  wide: {
    kind: "switch",
    help: "on the CPU, restart with flags for V8: up to twice as fast, without bounds checks",
  },
} as const satisfies Record<string, Flag>;

/** A network for small grey pictures: 690,000 parameters, 73 million multiplications at 28 × 28. */
const DEFAULT_UNET = {
  down_block_types: ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
  up_block_types: ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
  block_out_channels: [16, 32, 64],
  layers_per_block: 1,
  norm_num_groups: 8,
  attention_head_dim: null,
  freq_shift: 1,
  flip_sin_to_cos: false,
};
/** What it learns fastest with. */
const DEFAULT_TRAINING = { learning_rate: 0.001, warmup_steps: 200 };

type TrainFlags = Flags<typeof trainFlags>;

/** Runs the command. */
export async function trainCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, trainFlags);
  if (rest.length) throw new InputError(`train takes flags only, not ${rest[0]}`);
  if (!flags.out && !flags.profile) throw new InputError("train needs --out FOLDER");
  checkDeviceFlags(flags);
  if (flags.wide && !isWide()) return await runWide(["train", ...args]);
  if (flags.profile) return await profile(flags, flags.profile);
  const folder = new RunFolder(flags.out!, flags.half ? "F16" : "F32");
  const given = await askedFor(flags);
  const recorded = flags.resume ? formatRunConfig(await folder.readConfig()) : undefined;
  const place = given.data ?? recorded?.data;
  if (place === undefined) throw needsData();
  if (!recorded) await folder.checkNew();
  using progress = new Progress();
  const fields = overlay(recorded, given);
  const images = parseImages((recorded ?? fields).images ?? {});
  const data = await openDataset(place, images, progress, readOptions(flags));
  const wanted = assembleConfig(fields, flags, place, data);
  const config = recorded ? assembleConfig(recorded, {}, place, data) : wanted;
  if (recorded) checkUnchanged(config, wanted, folder);
  const state = recorded ? await folder.readState(config) : undefined;
  const plan = {
    last: flags.steps ?? USUAL.steps,
    logEvery: flags["log-every"] ?? USUAL.logEvery,
    saveEvery: flags["save-every"] ?? USUAL.saveEvery,
  };
  if (state && state.step >= plan.last) {
    throw new InputError(`The training has done ${state.step} steps; give more --steps to go on`);
  }
  await preparePictures();

  using device = await openTrainingDevice(flags, progress);
  const model = initialModel(config);
  using trainer = await Trainer.create(device, model, data, config.training);
  const run = { trainer, folder, config, device, progress };
  if (state) {
    trainer.restore(state);
    await folder.readLog(state.step);
  } else await createRun(run);
  announce(progress, trainer, model, data, device);
  progress.say(`written to  ${folder.path}`);
  if (trainer.step) progress.say(`going on    after step ${trainer.step}`);
  return await trainUntil(run, plan);
}

/** Does some steps of a new training, and prints where their time went. */
async function profile(flags: TrainFlags, steps: number): Promise<number> {
  const superfluous = (["out", "resume", "steps"] as const).find((name) => flags[name]);
  if (superfluous) throw new InputError(`--profile writes nothing: leave out --${superfluous}`);
  const asked = await askedFor(flags), place = asked.data;
  if (place === undefined) throw needsData();
  using progress = new Progress();
  const data = await openDataset(
    place,
    parseImages(asked.images ?? {}),
    progress,
    readOptions(flags),
  );
  const config = assembleConfig(asked, flags, place, data);
  using device = await openTrainingDevice(flags, progress);
  const model = initialModel(config);
  using trainer = await Trainer.create(device, model, data, config.training);
  announce(progress, trainer, model, data, device);
  print(await profileTraining(trainer, device, steps, progress));
  return 0;
}

async function openTrainingDevice(flags: TrainFlags, progress: Progress): Promise<Device> {
  const device = await openForCommand(flags.wide ? { ...flags, device: "cpu" } : flags, progress);
  progress.update(`compiling for ${device.name}`);
  return device;
}

const initialModel = ({ unet, scheduler, training }: RunConfig): Model =>
  initializeModel(unet, formatSchedule(scheduler), training.seed);

/** What --config gives, and the flags about data. */
async function askedFor(flags: TrainFlags): Promise<RunFields> {
  const { data, images, ...rest } = flags.config ? await readRunFields(flags.config) : {};
  return { ...rest, data: flags.data ?? data, images: { ...images, ...imageFields(flags) } };
}

const needsData = () =>
  new InputError(`train needs --data: ${Object.keys(knownData).join(", ")}, or a folder`);

/** How the data are read; it does not change what is learned. */
const readOptions = (flags: TrainFlags): ReadOptions => ({
  ...(flags.cache ? { cache: true } : {}),
  ...(flags["max-bad"] === undefined ? {} : { maxBad: flags["max-bad"] }),
});

/** The recorded fields, where there are any, with the given ones over them. */
const overlay = (recorded: RunFields | undefined, given: RunFields): RunFields => ({
  // The fields of a network depend on each other, those of the other sections do not.
  images: { ...recorded?.images, ...given.images },
  unet: given.unet ?? recorded?.unet,
  scheduler: { ...recorded?.scheduler, ...given.scheduler },
  training: { ...recorded?.training, ...given.training },
});

/** A whole configuration: the defaults, the fields that a file gives, then the flags. */
function assembleConfig(
  given: RunFields,
  flags: TrainFlags,
  place: string,
  { channels, height, width }: Dataset,
): RunConfig {
  const scheduler = parseSchedule(given.scheduler ?? {});
  const outChannels = outputChannels(scheduler, channels);
  const sizes = { in_channels: channels, out_channels: outChannels };
  const unet = parseUNetConfig({ ...sizes, ...(given.unet ?? DEFAULT_UNET) });
  if (unet.inChannels !== channels || unet.outChannels !== outChannels) {
    throw new InputError(
      `Cannot train on ${place}: its images have ${channels} channels, but the network has ` +
        `in_channels ${unet.inChannels} and out_channels ${unet.outChannels}` +
        ([1, 3].includes(unet.inChannels) ? `; --channels ${unet.inChannels} makes them fit` : ""),
    );
  }
  const [h, w] = unet.sampleSize ?? [height, width];
  if (h !== height || w !== width) {
    throw new InputError(
      `Cannot train on ${place}: its images are ${height}x${width}, but the sample_size of the ` +
        `network is ${h}x${w}; --size ${h === w ? w : `${w}x${h}`} makes them fit`,
    );
  }
  return {
    data: place,
    images: parseImages(given.images ?? {}),
    unet: { ...unet, sampleSize: [height, width] },
    scheduler,
    training: parseTraining({
      ...(given.unet ? {} : DEFAULT_TRAINING),
      ...given.training,
      ...trainingFlags(flags),
    }),
  };
}

/** Settings that flags give, by their names in files. */
const trainingFlags = (flags: TrainFlags): Record<string, unknown> => ({
  ...(flags["batch-size"] === undefined ? {} : { batch_size: flags["batch-size"] }),
  ...(flags["learning-rate"] === undefined ? {} : { learning_rate: flags["learning-rate"] }),
  ...scheduleFlags(flags["learning-rate-schedule"], flags.steps ?? USUAL.steps),
  ...(flags.seed === undefined ? {} : { seed: flags.seed }),
});

function scheduleFlags(schedule: string | undefined, steps: number): Record<string, unknown> {
  if (schedule === undefined) return {};
  const decay = { constant: null, cosine: steps, step: Math.ceil(steps / 3) };
  const decay_steps = decay[schedule as LearningRateSchedule];
  return { learning_rate_schedule: schedule, decay_steps };
}

/** Flags and files may repeat what a training was started with, but not change it. */
function checkUnchanged(config: RunConfig, wanted: RunConfig, folder: RunFolder): void {
  const sections = (c: RunConfig) => {
    const { images, scheduler, training } = formatRunConfig(c);
    return { ...images, ...architectureOf(c.unet), ...scheduler, ...training };
  };
  const difference = describeDifference(
    ...[sections(config), folder.path] as const,
    ...[sections(wanted), "what is asked for now"] as const,
  );
  if (difference) throw new InputError(`Cannot go on: ${difference}`);
}

function announce(
  progress: Progress,
  trainer: Trainer,
  model: Model,
  data: Dataset,
  device: Device,
): void {
  const { batchSize } = trainer.config;
  const size = `${data.width}x${data.height}x${data.channels}`;
  const classes = data.classes ? `, ${data.classes.length} classes` : "";
  progress.say(`data        ${data.name}: ${data.count} images of ${size}${classes}`);
  progress.say(`network     ${model.layout.count.toLocaleString("en")} parameters`);
  progress.say(
    `step        ${batchSize} images, ${(trainer.flops / 1e9).toPrecision(3)} GFLOP, ` +
      `${trainer.dispatches} kernels`,
  );
  progress.say(`device      ${device.name}, ${formatBytes(trainer.memory)} planned`);
  debugProgram(progress, trainer.describe());
}
