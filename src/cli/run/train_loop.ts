/**
 * The loop of `ddpm train`: steps, the log, checkpoints, pictures, a graceful end, and another try
 * where a device fails.
 *
 * @module
 */

import { toSnakeCase } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { isAllFinite } from "../../formats/elements.ts";
import { type Device, DeviceError, LimitError } from "../../gpu/device.ts";
import { Pace } from "../../gpu/step_pacer.ts";
import { initializeModel, type Model } from "../../model/model.ts";
import { formatSchedule, NoiseSchedule } from "../../diffusion/schedule.ts";
import { defaultMethod, methods } from "../../sample/solvers/mod.ts";
import type { Sampler } from "../../sample/sampler.ts";
import { usualSteps } from "../../sample/timesteps.ts";
import { learningRateAt, type TrainingConfig } from "../../train/config.ts";
import type { Dataset } from "../../data/dataset.ts";
import { isExhausted } from "../../train/loss_scale.ts";
import type { StepRecord } from "../../train/records.ts";
import { Trainer } from "../../train/trainer.ts";
import { INTERRUPTED, Interruption } from "./interruption.ts";
import { describeMemory, residentBytes } from "./memory.ts";
import { drawGrid, encodePng } from "../media/picture_files.ts";
import { debugProgram } from "./profile.ts";
import { formatBytes, formatTime, type Progress } from "../terminal/progress.ts";
import { formatRunConfig, type RunConfig } from "./run_config.ts";
import type { RunFolder } from "./run_folder.ts";
import { createSampler } from "../commands/sample.ts";
import { readChunks } from "./state_file.ts";
import { packageName, version } from "../terminal/version.ts";

/** A training that is to be done, and where. */
export interface Task {
  /** Whether the folder has yet to be made. */
  readonly isNew: boolean;
  readonly config: RunConfig;
  readonly data: Dataset;
  readonly folder: RunFolder;
  readonly plan: Plan;
  readonly progress: Progress;
  /** What was typed, for the report. */
  readonly command: string;
  /** Opens a device: the first time whichever is wanted, later one of the same kind. */
  open(kind?: Device["kind"]): Promise<Device>;
}

/** How far to go, and how often to tell and to save. */
export interface Plan {
  /** The last step. */
  readonly last: number;
  readonly logEvery: number;
  readonly saveEvery: number;
}

/** A training on a device. */
interface Run extends Task {
  readonly device: Device;
  readonly trainer: Trainer;
  /** Draws from the moving average of the weights. */
  readonly sampler: Sampler;
  /** Aborted when the user wants it to end. */
  readonly signal: AbortSignal;
}

/** Samples shown while training. */
const SHOWN = 16;

/** The report is written with every checkpoint, and in between as often as this. */
const REPORT_SECONDS = 15;

/** How often a device may fail without a checkpoint in between before a training ends. */
const MAX_FAILURES = 3;

/** A loss of this many times what it was at first is not going to come down. */
const EXPLOSION = 100;

/**
 * Trains to the last step or until it is interrupted; returns the exit code. A device that fails in
 * the middle is opened anew, and the training goes on from its last checkpoint.
 *
 * @throws {InputError} If the folder does not hold what it should.
 * @throws {DeviceError} If the device failed before the first step, or too often.
 */
export async function runTraining(task: Task): Promise<number> {
  const { folder, config, plan, progress } = task;
  let base = residentBytes();
  let saved = task.isNew ? undefined : await folder.readState(config);
  if (saved && saved.state.step >= plan.last) {
    using _ = saved;
    const { step } = saved.state;
    throw new InputError(`The training has done ${step} steps; give more --steps to go on`);
  }
  using interruption = new Interruption(progress, "saving");
  let kind: Device["kind"] | undefined;
  for (let failures = 0, before = -1;;) {
    try {
      const closed = residentBytes();
      using device = await task.open(kind);
      base += residentBytes() - closed;
      progress.update(`compiling for ${device.name}`);
      using programs = await compile(task, device);
      const run = { ...task, ...programs, device, signal: interruption.signal }, { trainer } = run;
      if (kind === undefined && task.isNew) {
        await folder.checkSpace(4 * trainer.buffers.ema.length);
        await folder.create(config);
      } else await folder.goOn(saved);
      if (kind === undefined) {
        announce(run, base);
        progress.say(`written to  ${folder.path}`);
        if (saved?.state.step) progress.say(`going on    after step ${saved.state.step}`);
      }
      if (saved) {
        using _ = saved;
        trainer.restore(saved.state);
      } else await save(run, 0);
      kind = device.kind;
      saved = undefined;
      return await trainUntil(run);
    } catch (error) {
      if (!(error instanceof DeviceError) || kind === undefined) throw error;
      failures = folder.lastSaved > before ? 1 : failures + 1;
      before = folder.lastSaved;
      if (failures === MAX_FAILURES) {
        throw new DeviceError(
          `${error.message}. It failed ${MAX_FAILURES} times in a row; --resume goes on after step ` +
            before,
          { cause: error },
        );
      }
      progress.say(`${error.message}. Opening it anew, to go on after step ${before}`);
      // A driver that was reset takes a moment.
      await new Promise((resolve) => setTimeout(resolve, 1000 * failures));
      saved = await folder.readState(config);
    }
  }
}

/**
 * Compiles all that a training runs, so that what does not fit the device ends it before it begins.
 * Where samples lack room, the step makes it by computing blocks twice.
 */
async function compile({ config, data }: Task, device: Device) {
  const model = initialModel(config, data), { scheduler, training } = config;
  const steps = usualSteps(methods[defaultMethod], new NoiseSchedule(scheduler));
  const tryWith = async (training: TrainingConfig) => {
    using stack = new DisposableStack();
    const trainer = stack.use(await Trainer.create(device, model, data, training));
    const { precision } = training;
    const options = { method: defaultMethod, steps, parameters: trainer.average, precision };
    try {
      const batchSize = SHOWN;
      const sampler = stack.use(await createSampler(device, model, { ...options, batchSize }));
      const owned = stack.move();
      return { trainer, sampler, [Symbol.dispose]: () => owned.dispose() };
    } catch (error) {
      if (!(error instanceof LimitError) || trainer.recomputes) throw error;
    }
  };
  const programs = await tryWith(training);
  return programs ?? (await tryWith({ ...training, gradientCheckpointing: true }))!;
}

/** The model that a training starts with. */
export const initialModel = (
  { network, scheduler, training }: RunConfig,
  data: Pick<Dataset, "shape" | "labels" | "classes">,
): Model =>
  initializeModel(
    ...[network, formatSchedule(scheduler), training.seed] as const,
    network.conditions(data.shape).labels ? classNames(data) : undefined,
  );

/** What the classes of a data set are called, their numbers where they have no names. */
function classNames({ labels = [], classes }: Pick<Dataset, "labels" | "classes">): string[] {
  const count = Array.from(labels).reduce((most, c) => Math.max(most, c + 1), 0);
  return Array.from(
    { length: Math.max(count, classes?.length ?? 0) },
    (_, c) => classes?.[c] ?? String(c),
  );
}

/** The shape of an item as people say it: width before height. */
export const formatItem = ([height, width, ...rest]: readonly number[]): string =>
  [width, height, ...rest].join("x");

/** Tells what is going to be trained, in a process that had `base` bytes before it compiled that. */
export function announce(
  { trainer, sampler, data, device, progress }:
    & Pick<Run, "trainer" | "data" | "device" | "progress">
    & Partial<Pick<Run, "sampler">>,
  base: number,
): void {
  const { batchSize, microBatch } = trainer.config;
  const size = formatItem(data.shape);
  const classes = data.classes ? `, ${data.classes.length} classes` : "";
  const parts = (microBatch === null ? "" : `, ${microBatch} at a time`) +
    (trainer.recomputes ? ", blocks computed twice to fit" : "");
  progress.say(`data        ${data.name}: ${data.count} images of ${size}${classes}`);
  progress.say(`network     ${trainer.parameters.toLocaleString("en")} parameters`);
  progress.say(
    `step        ${batchSize} images${parts}, ${(trainer.flops / 1e9).toPrecision(3)} GFLOP, ` +
      `${trainer.dispatches} kernels`,
  );
  progress.say(`device      ${device.name}`);
  progress.say(`memory      ${describeMemory(device, trainer, sampler, base)}`);
  debugProgram(progress, trainer.describe());
}

async function trainUntil(run: Run): Promise<number> {
  const { trainer, folder, config, device, progress, signal } = run;
  const { last, logEvery, saveEvery } = run.plan, batch = config.training.batchSize;
  const before = folder.seconds, began = performance.now(), first = trainer.step;
  const seconds = () => (performance.now() - began) / 1000;
  let loggedAt = 0, loss = "", reportedAt = -Infinity;
  const report = async (isRunning: boolean) => {
    reportedAt = seconds();
    await folder.writeReport({ last, isRunning, ...describeRun(run) });
  };
  const log = async (heldOut: number | undefined) => {
    const { step } = trainer, records = await readRecords(run), now = seconds();
    const speed = batch * (step - Math.max(first, folder.lastLogged)) / (now - loggedAt);
    const line = {
      step,
      ...summarize(records),
      ...(config.training.precision === "f32" ? {} : scaling(records)),
      ...(heldOut === undefined ? {} : { held_out: shorten(heldOut) }),
      learning_rate: shorten(learningRateAt(config.training, step - 1)),
      images_per_second: Number(speed.toPrecision(4)),
      seconds: Number((before + now).toFixed(3)),
      rss_mb: Number((Deno.memoryUsage().rss / 1e6).toFixed(1)),
    };
    loggedAt = now;
    loss = `, loss ${line.loss.toFixed(4)}`;
    await folder.log(line);
    if (!Deno.stderr.isTerminal()) {
      progress.say(`step ${step} of ${last}${loss}, ${speed.toFixed(1)} images/s`);
    }
    if (now - reportedAt > REPORT_SECONDS) await report(true);
  };
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
    const isDue = step % saveEvery === 0 || step === last, from = seconds();
    const heldOut = isDue && config.training.heldOut ? await trainer.evaluate() : undefined;
    loggedAt += seconds() - from;
    if (step % logEvery === 0 || step === last || heldOut !== undefined) await log(heldOut);
    if (isDue) {
      const from = seconds();
      await save(run, before + from);
      await showSamples(run);
      await report(step < last);
      loggedAt += seconds() - from;
    }
    await pace.end(steps);
  }
  if (!signal.aborted) {
    const time = formatTime(before + seconds());
    progress.say(`done: ${last} steps in ${time}, model in ${folder.path}`);
    return 0;
  }
  if (folder.lastSaved < trainer.step) await save(run, before + seconds());
  await report(false);
  progress.say(`saved after step ${trainer.step}; --resume goes on`);
  return INTERRUPTED;
}

const shorten = (x: number) => Number(x.toPrecision(7));

/** What a line of the log tells of scaled losses: the last scale, and how many steps it cost. */
const scaling = (records: readonly StepRecord[]) => ({
  loss_scale: records[records.length - 1].lossScale,
  skipped_steps: records.filter((r) => r.isSkipped).length,
});

/** What a line of the log tells of steps. */
function summarize(all: readonly StepRecord[]) {
  const learnt = all.filter((r) => !r.isSkipped), records = learnt.length ? learnt : all;
  const mean = (values: number[]) => shorten(values.reduce((sum, v) => sum + v, 0) / values.length);
  const quartiles = records[0].quartiles.map((_, q) => {
    const total = (field: "sum" | "count") =>
      records.reduce((all, { quartiles }) => all + quartiles[q][field], 0);
    return total("count") ? shorten(total("sum") / total("count")) : null;
  });
  return {
    loss: mean(records.map((r) => r.loss)),
    loss_quartiles: quartiles,
    grad_norm: mean(records.map((r) => r.gradientNorm)),
  };
}

/** What the report says of how a training is made. */
function describeRun({ command, config, data, device, trainer }: Run) {
  const { os, arch } = Deno.build, size = formatItem(data.shape);
  const { data: _, steps: __, ...settings } = formatRunConfig(config);
  const facts = {
    command,
    data: `${data.name}: ${data.count} images of ${size}`,
    network: `${trainer.parameters.toLocaleString("en")} parameters`,
    step: `${config.training.batchSize} images, ${(trainer.flops / 1e9).toPrecision(3)} GFLOP`,
    device: `${device.name}, ${formatBytes(trainer.memory)}`,
    machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores`,
    software: `${packageName} ${version}, Deno ${Deno.version.deno}`,
  };
  return { facts, settings };
}

/** How the steps since the last line of the log went. */
async function readRecords({ trainer, folder }: Run): Promise<readonly StepRecord[]> {
  const records = await trainer.records(trainer.step - folder.lastLogged);
  const usual = folder.firstLine;
  const isGood = ({ loss, gradientNorm, isSkipped, lossScale }: StepRecord) =>
    isSkipped ? !isExhausted(lossScale) : Number.isFinite(loss) && Number.isFinite(gradientNorm) &&
      !(usual && loss > EXPLOSION * usual.loss);
  const bad = records.find((record) => !isGood(record));
  if (!bad) return records;
  const what = `The loss is ${format(bad.loss)} at step ${bad.step}, with a gradient of norm ` +
    format(bad.gradientNorm);
  throw diverged(usual ? `${what}, where it was ${format(usual.loss)} at first` : what, folder);
}

const format = (x: number) => Number.isFinite(x) ? String(Number(x.toPrecision(4))) : String(x);

const diverged = (what: string, folder: RunFolder) =>
  new Error(
    `${what}: try a lower --learning-rate; the checkpoint of step ${folder.lastSaved} is kept`,
  );

/** Writes a checkpoint, unless the training went wrong. */
async function save(run: Run, seconds: number): Promise<void> {
  const { trainer, folder, config, device } = run;
  await readRecords(run);
  for (const [name, buffer] of Object.entries(trainer.buffers)) {
    // The history tells of gradients that overflowed.
    if (name === "history") continue;
    for await (const chunk of readChunks(buffer)) {
      if (isAllFinite(chunk)) continue;
      throw diverged(`Weights are no longer finite after step ${trainer.step}`, folder);
    }
  }
  const card = makeCard(config, trainer.step, seconds, device);
  await folder.save(trainer, seconds, config, await trainer.model(card));
}

/** Draws samples from the moving average of the weights. */
async function showSamples(
  { trainer, sampler, folder, config, data, progress, signal }: Run,
): Promise<void> {
  const { seed, labelDropout } = config.training;
  const { labels: known } = config.network.conditions(data.shape);
  const classes = known?.below && known.below - (labelDropout ? 1 : 0);
  const labels = classes ? Array.from({ length: SHOWN }, (_, k) => k % classes) : undefined;
  progress.update(`step ${trainer.step}: drawing samples`);
  const options = { count: SHOWN, seed, signal, ...(labels ? { labels } : {}) };
  const images = await sampler.sample(options);
  if (signal.aborted) return;
  const { steps } = sampler,
    provenance = { step: trainer.step, seed, steps, sampler: defaultMethod };
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
