/**
 * The loop of `ddpm train`: steps, the log, checkpoints, pictures, and a graceful end.
 *
 * @module
 */

import { toSnakeCase } from "../config.ts";
import type { Device } from "../gpu/device.ts";
import { Pace } from "../gpu/pace.ts";
import { Sampler } from "../sample/sampler.ts";
import type { Trainer } from "../train/trainer.ts";
import { drawGrid, encodePng } from "./pictures.ts";
import { formatTime, type Progress } from "./progress.ts";
import type { RunConfig, RunFolder } from "./run_folder.ts";
import { packageName, version } from "./version.ts";

/** A training and where it happens. */
export interface Run {
  readonly trainer: Trainer;
  readonly folder: RunFolder;
  readonly config: RunConfig;
  readonly device: Device;
  readonly progress: Progress;
}

/** How far to go, and how often to tell and to save. */
export interface Plan {
  /** The last step. */
  readonly last: number;
  readonly logEvery: number;
  readonly saveEvery: number;
}

/** Samples shown while training: how many, and in how many steps they are made. */
const SHOWN = 16, SHOWN_STEPS = 50;

/** The exit code of a program that was interrupted. */
const INTERRUPTED = 130;

/** Writes the folder of a training that is about to start. */
export async function createRun({ trainer, folder, config, device }: Run): Promise<void> {
  const model = await trainer.model(makeCard(config, 0, 0, device));
  await folder.create(await trainer.state(), config, model);
}

/** Trains to the last step or until it is interrupted; returns the exit code. */
export async function trainUntil(run: Run, { last, logEvery, saveEvery }: Plan): Promise<number> {
  const { trainer, folder, config, device, progress } = run, batch = config.training.batchSize;
  const interruption = new AbortController(), { signal } = interruption;
  const interrupt = () => {
    if (signal.aborted) Deno.exit(INTERRUPTED);
    progress.say("interrupted: saving; once more ends at once");
    interruption.abort();
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const name of signals) Deno.addSignalListener(name, interrupt);

  const before = folder.seconds, began = performance.now(), first = trainer.step;
  const seconds = () => (performance.now() - began) / 1000;
  let loggedAt = 0, loss = "";
  const log = async () => {
    const { step } = trainer, records = await trainer.records(step - folder.lastLogged);
    const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
    const now = seconds(),
      speed = batch * (step - Math.max(first, folder.lastLogged)) /
        (now - loggedAt);
    const line = {
      step,
      loss: Number(mean(records.map((r) => r.loss)).toPrecision(7)),
      grad_norm: Number(mean(records.map((r) => r.gradientNorm)).toPrecision(7)),
      images_per_second: Number(speed.toPrecision(4)),
      seconds: Number((before + now).toFixed(3)),
    };
    const bad = records.find((r) => !Number.isFinite(r.loss));
    if (bad) throw diverged(`The loss is ${bad.loss} at step ${bad.step}`);
    loggedAt = now;
    loss = `, loss ${line.loss.toFixed(4)}`;
    await folder.log(line);
    if (!Deno.stderr.isTerminal()) {
      progress.say(`step ${step} of ${last}${loss}, ${speed.toFixed(1)} images/s`);
    }
  };
  const save = async () => {
    const state = await trainer.state(), now = before + seconds();
    if (!state.arrays.parameters.every(Number.isFinite)) {
      throw diverged(`Weights are no longer finite after step ${state.step}`);
    }
    const card = makeCard(config, state.step, now, device);
    await folder.save(state, now, config, await trainer.model(card));
  };
  try {
    const pace = new Pace();
    while (trainer.step < last && !signal.aborted) {
      const next = (every: number) => every - trainer.step % every;
      const left = Math.min(last - trainer.step, next(logEvery), next(saveEvery));
      const steps = pace.begin(left);
      for (let i = 0; i < steps; i++) await trainer.run();
      await device.idle();
      const { step } = trainer, perStep = seconds() / (step - first);
      progress.update(
        `step ${step} of ${last}${loss}, ${(batch / perStep).toFixed(1)} images/s, ` +
          `${formatTime(perStep * (last - step))} left`,
      );
      if (step % logEvery === 0 || step === last) await log();
      if (step % saveEvery === 0 && step < last) {
        const from = seconds();
        await save();
        await showSamples(run, signal);
        loggedAt += seconds() - from;
      }
      await pace.end(steps);
    }
    await save();
    if (trainer.step === last && !signal.aborted) await showSamples(run, signal);
    if (signal.aborted) {
      progress.say(`saved after step ${trainer.step}; --resume goes on`);
      return INTERRUPTED;
    }
    progress.say(
      `done: ${last} steps in ${formatTime(before + seconds())}, model in ${folder.path}`,
    );
    return 0;
  } finally {
    progress.clear();
    for (const name of signals) Deno.removeSignalListener(name, interrupt);
  }
}

const diverged = (what: string) =>
  new Error(`${what}: try a lower --learning-rate; the last checkpoint is kept`);

/** Draws samples from the moving average of the weights. */
async function showSamples(
  { trainer, folder, device, config, progress }: Run,
  signal: AbortSignal,
): Promise<void> {
  const model = await trainer.model(), { seed } = config.training;
  // Which class to draw would be anybody's guess.
  if (model.config.numClassEmbeds !== null) return;
  progress.update(`step ${trainer.step}: drawing samples`);
  const steps = Math.min(SHOWN_STEPS, config.scheduler.numTrainTimesteps);
  using sampler = await Sampler.create(device, model, {
    ...{ steps, batchSize: SHOWN },
    parameters: trainer.average,
  });
  const images = await sampler.sample({ count: SHOWN, seed, signal });
  if (signal.aborted) return;
  const provenance = { step: trainer.step, seed, steps, sampler: "ddpm" };
  await folder.writeSamples(trainer.step, await encodePng(drawGrid(images), provenance));
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
