/**
 * `ddpm train`: a model from pictures.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { Pace } from "../gpu/pace.ts";
import { parseUNetConfig } from "../model/config.ts";
import { initializeModel, type Model } from "../model/model.ts";
import { formatSchedule, parseSchedule } from "../model/schedule.ts";
import { makeGrid } from "../sample/pixels.ts";
import { Sampler } from "../sample/sampler.ts";
import type { Dataset } from "../train/dataset.ts";
import { HISTORY } from "../train/step.ts";
import { parseTraining, Trainer } from "../train/trainer.ts";
import { toSnakeCase } from "../config.ts";
import { openDataset } from "./data.ts";
import { deviceFlag, openForCommand } from "./device.ts";
import { type Flag, type Flags, parseFlags } from "./flags.ts";
import { encodePng, scaleFor } from "./pictures.ts";
import { formatBytes, formatTime, Progress } from "./progress.ts";
import { readRunConfig, type RunConfig, RunFolder } from "./run_folder.ts";
import { packageName, version } from "./version.ts";

/** What `train` understands. */
export const trainFlags = {
  data: {
    kind: "text",
    value: "DATA",
    help: "mnist, or a folder with MNIST-like IDX files, raw or .gz",
  },
  out: { kind: "text", value: "FOLDER", help: "where everything is written" },
  config: {
    kind: "text",
    value: "FILE",
    help: "JSON with unet, scheduler and training, as in a run's config.json",
  },
  steps: { kind: "integer", min: 1, max: 100_000_000, help: "steps in all; default 5000" },
  "batch-size": { kind: "integer", min: 1, max: 65536, help: "images a step; default 64" },
  "learning-rate": { kind: "number", min: 0, max: 1, help: "default 0.0002" },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "of weights, order and noise; default 0",
  },
  "log-every": { kind: "integer", min: 1, max: HISTORY, help: "steps; default 50" },
  "save-every": {
    kind: "integer",
    min: 1,
    help: "steps between checkpoints and sample grids; default 500",
  },
  resume: { kind: "switch", help: "go on where the training in FOLDER stopped" },
  device: deviceFlag,
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

/** Samples shown while training: how many, and in how many steps they are made. */
const SHOWN = 16, SHOWN_STEPS = 50;

/** The exit code of a program that was interrupted. */
const INTERRUPTED = 130;

/** Runs the command. */
export async function trainCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, trainFlags);
  if (rest.length) throw new InputError(`train takes flags only, not ${rest[0]}`);
  if (!flags.out) throw new InputError("train needs --out FOLDER");
  const folder = new RunFolder(flags.out);
  const config = flags.resume ? await resumedConfig(folder, flags) : await newConfig(folder, flags);
  const data = await openDataset(config.data);
  const model = initializeModel(
    config.unet,
    formatSchedule(config.scheduler),
    config.training.seed,
  );
  const state = flags.resume ? await folder.readState(config) : undefined;

  const progress = new Progress();
  using device = await openForCommand(flags.device, progress);
  using trainer = await Trainer.create(device, model, data, config.training);
  if (state) {
    trainer.restore(state);
    await folder.readLog(state.step);
  } else await folder.create(config);
  announce(progress, trainer, model, data, device, folder);
  return await trainUntil(trainer, { folder, config, flags, device, progress });
}

type TrainFlags = Flags<typeof trainFlags>;

/** The configuration of a new training: the defaults, the file's, then the flags'. */
async function newConfig(folder: RunFolder, flags: TrainFlags): Promise<RunConfig> {
  const given = flags.config ? await readRunConfig(flags.config) : {};
  const data = flags.data ?? given.data;
  if (data === undefined) throw new InputError("train needs --data: mnist, or a folder");
  if (await folder.exists()) {
    throw new InputError(
      `${folder.path} holds a training already: --resume goes on with it, another --out starts anew`,
    );
  }
  const { channels, height, width } = await openDataset(data);
  const unet = given.unet ??
    parseUNetConfig({ ...DEFAULT_UNET, in_channels: channels, out_channels: channels });
  const training = {
    ...(given.training ? toSnakeCase(given.training) : {}),
    ...trainingFlags(flags),
  };
  return {
    data,
    unet: { ...unet, sampleSize: [height, width] },
    scheduler: given.scheduler ?? parseSchedule({}),
    training: parseTraining(training),
  };
}

/** Settings that flags give, by their names in files. */
const trainingFlags = (flags: TrainFlags): Record<string, number> => ({
  ...(flags["batch-size"] === undefined ? {} : { batch_size: flags["batch-size"] }),
  ...(flags["learning-rate"] === undefined ? {} : { learning_rate: flags["learning-rate"] }),
  ...(flags.seed === undefined ? {} : { seed: flags.seed }),
});

/** The configuration that a training was started with; flags may repeat but not change it. */
async function resumedConfig(folder: RunFolder, flags: TrainFlags): Promise<RunConfig> {
  if (!await folder.exists()) {
    throw new InputError(`Cannot go on: ${folder.path} holds no training`);
  }
  const config = await folder.readConfig(), recorded = toSnakeCase(config.training);
  for (const [name, value] of Object.entries(trainingFlags(flags))) {
    if (recorded[name] !== value) {
      throw new InputError(
        `Cannot go on with --${name.replace("_", "-")} ${value}: the training was started with ` +
          `${recorded[name]}`,
      );
    }
  }
  const given = flags.config ? await readRunConfig(flags.config) : {};
  return { ...config, ...given, ...(flags.data === undefined ? {} : { data: flags.data }) };
}

function announce(
  progress: Progress,
  trainer: Trainer,
  model: Model,
  data: Dataset,
  device: Device,
  folder: RunFolder,
): void {
  const { batchSize } = trainer.config;
  const size = `${data.width}x${data.height}x${data.channels}`;
  progress.say(`data        ${data.name}: ${data.count} images of ${size}`);
  progress.say(`network     ${model.layout.count.toLocaleString("en")} parameters`);
  progress.say(
    `step        ${batchSize} images, ${(trainer.flops / 1e9).toFixed(1)} GFLOP, ` +
      `${trainer.dispatches} kernels`,
  );
  progress.say(`device      ${device.name}, ${formatBytes(trainer.memory)} planned`);
  progress.say(`written to  ${folder.path}`);
  if (trainer.step) progress.say(`going on    after step ${trainer.step}`);
}

interface Context {
  readonly folder: RunFolder;
  readonly config: RunConfig;
  readonly flags: TrainFlags;
  readonly device: Device;
  readonly progress: Progress;
}

/** Trains to the last step or until it is interrupted; returns the exit code. */
async function trainUntil(trainer: Trainer, context: Context): Promise<number> {
  const { folder, config, flags, device, progress } = context;
  const last = flags.steps ?? 5000, batch = config.training.batchSize;
  const logEvery = flags["log-every"] ?? 50, saveEvery = flags["save-every"] ?? 500;
  if (trainer.step >= last) {
    throw new InputError(`The training has done ${trainer.step} steps; give more --steps to go on`);
  }
  let isInterrupted = false;
  const interrupt = () => {
    if (isInterrupted) Deno.exit(INTERRUPTED);
    isInterrupted = true;
    progress.say("interrupted: saving; once more ends at once");
  };
  const signals = ["SIGINT", ...(Deno.build.os === "windows" ? [] : ["SIGTERM" as const])] as const;
  for (const signal of signals) Deno.addSignalListener(signal, interrupt);

  const before = folder.seconds, began = performance.now(), first = trainer.step;
  const seconds = () => (performance.now() - began) / 1000;
  let loggedAt = 0, rate = "";
  const save = async () => {
    const card = makeCard(config, trainer.step, before + seconds(), device);
    await folder.save(await trainer.state(), config, await trainer.model(card));
  };
  try {
    const pace = new Pace();
    while (trainer.step < last && !isInterrupted) {
      const next = (every: number) => every - trainer.step % every;
      const left = Math.min(last - trainer.step, next(logEvery), next(saveEvery));
      const steps = pace.begin(left);
      for (let i = 0; i < steps; i++) trainer.run();
      await device.idle();
      const { step } = trainer;
      const perStep = seconds() / (step - first);
      progress.update(
        `step ${step} of ${last}${rate}, ${(batch / perStep).toFixed(1)} images/s, ` +
          `${formatTime(perStep * (last - step))} left`,
      );
      if (step % logEvery === 0 || step === last) {
        const records = await trainer.records(step - folder.lastLogged);
        const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
        const loss = mean(records.map((r) => r.loss));
        if (!Number.isFinite(loss)) {
          const bad = records.find((r) => !Number.isFinite(r.loss)) ?? records[0];
          throw new Error(
            `The loss is ${bad.loss} at step ${bad.step}: try a lower --learning-rate; the last ` +
              "checkpoint is kept",
          );
        }
        const now = seconds(), speed = batch * records.length / (now - loggedAt);
        loggedAt = now;
        rate = `, loss ${loss.toFixed(4)}`;
        await folder.log({
          step,
          loss: Number(loss.toPrecision(7)),
          grad_norm: Number(mean(records.map((r) => r.gradientNorm)).toPrecision(7)),
          images_per_second: Number(speed.toPrecision(4)),
          seconds: Number((before + now).toFixed(3)),
        });
        if (!Deno.stderr.isTerminal()) {
          progress.say(`step ${step} of ${last}${rate}, ${speed.toFixed(1)} images/s`);
        }
      }
      if (step % saveEvery === 0 && step < last && !isInterrupted) {
        await save();
        await showSamples(trainer, context);
      }
      await pace.end(steps);
    }
    await save();
    if (isInterrupted) {
      progress.say(`saved after step ${trainer.step}; --resume goes on`);
      return INTERRUPTED;
    }
    await showSamples(trainer, context);
    progress.say(
      `done: ${last} steps in ${formatTime(before + seconds())}, model in ${folder.path}`,
    );
    return 0;
  } finally {
    progress.clear();
    for (const signal of signals) Deno.removeSignalListener(signal, interrupt);
  }
}

/** Draws samples from the moving average of the weights. */
async function showSamples(trainer: Trainer, { folder, device, config, progress }: Context) {
  const model = await trainer.model(), { seed } = config.training;
  if (model.config.numClassEmbeds !== null) return;
  progress.update(`step ${trainer.step}: drawing samples`);
  using sampler = await Sampler.create(device, model, {
    ...{ steps: Math.min(SHOWN_STEPS, config.scheduler.numTrainTimesteps), batchSize: SHOWN },
    parameters: trainer.average,
  });
  const images = await sampler.sample({ count: SHOWN, seed });
  const provenance = { step: trainer.step, seed, steps: SHOWN_STEPS, sampler: "ddim" };
  const grid = makeGrid(images, scaleFor(images));
  await folder.writeSamples(trainer.step, await encodePng(grid, provenance));
}

/** What a model's file says of its making. */
function makeCard(config: RunConfig, step: number, seconds: number, device: Device) {
  return {
    software: `${packageName} ${version}`,
    data: config.data,
    steps: String(step),
    training: JSON.stringify(toSnakeCase(config.training)),
    seconds: String(Math.round(seconds)),
    device: device.name,
  };
}
