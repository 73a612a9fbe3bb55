/**
 * The training loop of `ddpm train`: steps, log, checkpoints, samples, graceful stop, and recovery
 * from device failures.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { isAllFinite } from "../../formats/elements.ts";
import { type Device, DeviceError, LimitError } from "../../gpu/device.ts";
import { Pace } from "../../gpu/step_pacer.ts";
import type { Trainable } from "../../model/model.ts";
import type { Weighted } from "../../model/weights.ts";
import { autoencoderNetwork, formatNetwork, parseNetwork, toldOf } from "../../model/network.ts";
import { learningRateAt, type TrainingConfig } from "../../train/config.ts";
import { comparePictures, type Fingerprint } from "../data/fingerprint.ts";
import type { Dataset } from "../../data/dataset.ts";
import { describeDivergence, type StepRecord } from "../../train/records.ts";
import type { Trainer } from "../../train/trainer.ts";
import { createTrainer, withAdvice } from "./fit.ts";
import type { RestorableState } from "../../train/state.ts";
import { partOf } from "../../train/step_inputs.ts";
import { initialModel } from "../../train/initial_model.ts";
import type { PreparedLatents } from "./latents.ts";
import { INTERRUPTED, Interruption } from "./interruption.ts";
import { scaling, shorten, summarize } from "./log_line.ts";
import { describeMemory, residentBytes } from "./memory.ts";
import { drawGrid, encodePng } from "../media/picture_files.ts";
import { debugProgram } from "./profile.ts";
import { formatLeft, formatRate, formatTime, type Progress } from "../terminal/progress.ts";
import { formatBytes } from "../../units.ts";
import { cardOf, formatRunConfig, type RunConfig } from "../../train/run_config.ts";
import type { RunFolder, SavedState } from "./run_folder.ts";
import { createGrid, type SampleGrid } from "./sample_grid.ts";
import { readChunks } from "./state_file.ts";
import { software } from "../terminal/version.ts";

/** A training to run, and where. */
export interface Task {
  /** Whether it is a new training rather than a resumed one. */
  readonly isNew: boolean;
  /** Where a training that is new here goes on. */
  readonly begun?: RestorableState | undefined;
  readonly config: RunConfig;
  readonly data: Dataset;
  /** What the data are made of, if they are latents. */
  readonly latents?: PreparedLatents | undefined;
  /** The network with the text encoder that a new training starts with, if it is given one. */
  readonly textEncoder?: Weighted | undefined;
  readonly fingerprint: Fingerprint;
  readonly folder: RunFolder;
  readonly plan: Plan;
  readonly progress: Progress;
  /** The command line, for the report. */
  readonly command: string;
  /** Opens the device; after a failure, one of the same kind as before. */
  open(kind?: Device["kind"]): Promise<Device>;
}

/** The last step, and the intervals of log and checkpoints. */
export interface Plan {
  /** The last step. */
  readonly last: number;
  readonly logEvery: number;
  readonly saveEvery: number;
}

/** A training on a device. */
interface Run extends Task {
  readonly device: Device;
  readonly trainer: Trainer<Trainable>;
  /** Draws by the EMA of the weights, but of classifiers. */
  readonly grid?: SampleGrid;
  /** Aborts when the user interrupts the training. */
  readonly signal: AbortSignal;
}

/** The report is written with every checkpoint, and at this interval in between. */
const REPORT_SECONDS = 15;

/** Device failures without a checkpoint in between after which a training gives up. */
const MAX_FAILURES = 3;

/**
 * Trains to the last step or until interrupted; returns the exit code. If the device fails, it is
 * reopened and the training continues from its last checkpoint.
 *
 * @throws {InputError} If the folder does not hold what it should.
 * @throws {DeviceError} If the device failed before the first step, or too often.
 */
export async function runTraining(task: Task): Promise<number> {
  const { folder, config, plan, progress } = task;
  let base = residentBytes();
  let saved = task.isNew ? task.begun && unopened(task.begun) : await folder.readState(config);
  if (saved && saved.state.step >= plan.last) {
    using _ = saved;
    const { step } = saved.state;
    throw new InputError(`The training has done ${step} steps; give more --steps to continue`);
  }
  const changed = saved?.fingerprint && comparePictures(
    ...[saved.fingerprint, task.fingerprint, task.data.name] as const,
    toldOf(task.config.network, task.data.shape).labels !== undefined,
  );
  if (changed) progress.say(changed);
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
      await task.latents?.save(folder.path);
      if (kind === undefined) {
        announce(run, base);
        progress.say(`written to  ${folder.path}`);
        if (saved?.state.step) progress.say(`resuming    after step ${saved.state.step}`);
      }
      if (saved) {
        using _ = saved;
        trainer.restore(saved.state);
      }
      if (!saved || kind === undefined && task.isNew) await save(run);
      kind = device.kind;
      saved = undefined;
      return await trainUntil(run);
    } catch (error) {
      if (!(error instanceof DeviceError) || kind === undefined) throw error;
      failures = folder.lastSaved > before ? 1 : failures + 1;
      before = folder.lastSaved;
      if (failures === MAX_FAILURES) {
        throw new DeviceError(
          `${error.message}. It failed ${MAX_FAILURES} times in a row; --resume continues after step ` +
            before,
          { cause: error },
        );
      }
      progress.say(`${error.message}. Reopening it to continue after step ${before}`);
      // A driver that was reset takes a moment.
      await new Promise((resolve) => setTimeout(resolve, 1000 * failures));
      saved = await folder.readState(config);
    }
  }
}

/** A state of which nothing is known but itself, and that somebody else closes. */
const unopened = (state: RestorableState): SavedState => ({
  ...{ state, fingerprint: undefined },
  [Symbol.dispose]: () => {},
});

/**
 * Compiles everything up front, so that a training that does not fit the device fails before it
 * begins. If there is no room for sampling, the step uses gradient checkpointing.
 */
async function compile({ config, data, latents, textEncoder }: Task, device: Device) {
  const { autoencoder } = latents ?? {}, { training } = config;
  const model = initialModel(config, data, { autoencoder, textEncoder });
  let free = 0;
  const tryWith = async (training: TrainingConfig) => {
    using stack = new DisposableStack();
    const trainer = stack.use(await createTrainer(device, model, data, training));
    try {
      const grid = stack.use(await createGrid(device, model, data, trainer));
      const owned = stack.move(), programs = { trainer, ...(grid ? { grid } : {}) };
      return { ...programs, [Symbol.dispose]: () => owned.dispose() };
    } catch (error) {
      if (!(error instanceof LimitError)) throw error;
      if (!trainer.recomputes) return undefined;
      free = trainer.memory + error.limit;
      throw error;
    }
  };
  try {
    return await tryWith(training) ??
      (await tryWith({ ...training, gradientCheckpointing: true }))!;
  } catch (error) {
    if (!(error instanceof LimitError) || !free || device.kind === "gpu") throw error;
    throw withAdvice(error, device, model, data, training, free, partOf(training) >> 1);
  }
}

/** The shape of an item as text, width before height. */
export const formatItem = ([height, width, ...rest]: readonly number[]): string =>
  [width, height, ...rest].join("x");

/** Prints what is about to be trained; `base` is the resident memory before compiling. */
export function announce(
  { trainer, grid, data, latents, device, progress }:
    & Pick<Run, "trainer" | "data" | "latents" | "device" | "progress">
    & Partial<Pick<Run, "grid">>,
  base: number,
): void {
  const { batchSize, microBatch } = trainer.config;
  const size = formatItem(data.shape);
  const classes = data.classes ? `, ${data.classes.length} classes` : "";
  const parts = (microBatch === null ? "" : `, ${microBatch} at a time`) +
    (trainer.recomputes ? ", gradient checkpointing to fit" : "");
  progress.say(
    `data        ${data.name}: ${data.count} ${
      latents ? "latents" : "images"
    } of ${size}${classes}`,
  );
  progress.say(`network     ${trainer.parameters.toLocaleString("en")} parameters`);
  progress.say(
    `step        ${batchSize} images${parts}, ${(trainer.flops / 1e9).toPrecision(3)} GFLOP, ` +
      `${trainer.dispatches} kernels`,
  );
  progress.say(`device      ${device.name}`);
  progress.say(`memory      ${describeMemory(device, trainer, grid, base)}`);
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
    const done = batch * (step - Math.max(first, folder.lastLogged)), took = now - loggedAt;
    const line = {
      step,
      ...summarize(records),
      ...(config.training.precision === "f32" ? {} : scaling(records)),
      ...(heldOut === undefined ? {} : { held_out: shorten(heldOut) }),
      learning_rate: shorten(learningRateAt(config.training, step - 1)),
      images_per_second: took > 0 ? Number((done / took).toPrecision(4)) : 0,
      seconds: Number((before + now).toFixed(3)),
      rss_mb: Number((Deno.memoryUsage().rss / 1e6).toFixed(1)),
    };
    loggedAt = now;
    const right = line.accuracy === undefined
      ? ""
      : `, ${(100 * line.accuracy).toFixed(1)} % right`;
    loss = `, loss ${line.loss.toFixed(4)}${right}`;
    await folder.log(line);
    if (!Deno.stderr.isTerminal()) {
      progress.say(`step ${step} of ${last}${loss}, ${formatRate(done, took)} images/s`);
    }
    if (now - reportedAt > REPORT_SECONDS) await report(true);
  };
  const saveRest = async () => {
    if (folder.lastSaved < trainer.step) await save(run);
    await report(false);
    progress.say(`saved after step ${trainer.step}; --resume continues`);
  };
  // Too many images may turn out to be bad: what was learnt until then is saved.
  const reading = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof DeviceError)) await saveRest();
      throw error;
    }
  };
  const pace = new Pace(device);
  while (trainer.step < last && !signal.aborted) {
    const next = (every: number) => every - trainer.step % every;
    const left = Math.min(last - trainer.step, next(logEvery), next(saveEvery));
    const steps = pace.begin(left);
    for (let i = 0; i < steps; i++) await reading(() => trainer.run());
    await device.idle();
    const { step } = trainer, done = step - first;
    progress.update(
      `step ${step} of ${last}${loss}, ${formatRate(batch * done, seconds())} images/s` +
        formatLeft(done, last - first, seconds()),
    );
    const isDue = step % saveEvery === 0 || step === last, from = seconds();
    const heldOut = isDue && config.training.heldOut
      ? await reading(() => trainer.evaluate())
      : undefined;
    loggedAt += seconds() - from;
    if (step % logEvery === 0 || step === last || heldOut !== undefined) await log(heldOut);
    if (isDue) {
      const from = seconds();
      await save(run);
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
  await saveRest();
  return INTERRUPTED;
}

/** Facts and settings of a training, for the report. */
function describeRun({ command, config, data, latents, device, trainer }: Run) {
  const { os, arch } = Deno.build, size = formatItem(data.shape);
  const { data: _, steps: __, ...settings } = formatRunConfig(config);
  const facts = {
    command,
    data: `${data.name}: ${data.count} ${
      latents ? `latents (${config.latent})` : "images"
    } of ${size}`,
    network: `${trainer.parameters.toLocaleString("en")} parameters`,
    step: `${config.training.batchSize} images, ${(trainer.flops / 1e9).toPrecision(3)} GFLOP`,
    device: `${device.name}, ${formatBytes(trainer.memory)}`,
    machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores`,
    software: `${software}, Deno ${Deno.version.deno}`,
  };
  return { facts, settings };
}

/** Records of the steps since the last line of the log. */
async function readRecords({ trainer, folder }: Run): Promise<readonly StepRecord[]> {
  const records = await trainer.records(trainer.step - folder.lastLogged);
  const what = describeDivergence(records, folder.firstLine?.loss);
  if (what === undefined) return records;
  throw diverged(what, folder);
}

const diverged = (what: string, folder: RunFolder) =>
  new Error(
    `${what}: try a lower --learning-rate; the checkpoint of step ${folder.lastSaved} is kept`,
  );

/** Writes a checkpoint, unless the training has diverged. */
async function save(run: Run): Promise<void> {
  const { trainer, folder } = run;
  await readRecords(run);
  for (const [name, buffer] of Object.entries(trainer.buffers)) {
    // Gradients that overflowed are part of the history.
    if (name === "history") continue;
    for await (const chunk of readChunks(buffer)) {
      if (isAllFinite(chunk)) continue;
      throw diverged(`The weights are no longer finite after step ${trainer.step}`, folder);
    }
  }
  await folder.save(trainer, run, await finishedModel(run));
}

/** The model with the EMA of the weights; of an autoencoder with the scale of its latents. */
async function finishedModel(run: Run): Promise<Trainable> {
  const model = await run.trainer.model(makeCard(run));
  if ("schedule" in model || !run.grid?.measureScale) return model;
  const scaling_factor = await run.grid.measureScale(), { network } = model;
  // Before the first step, latents may all be the same.
  if (!Number.isFinite(scaling_factor)) return model;
  const fields = { ...formatNetwork(network), scaling_factor };
  return { ...model, network: autoencoderNetwork(parseNetwork(fields)) };
}

/** Writes a grid of what the training has come to. */
async function showSamples({ trainer, grid, folder, progress, signal }: Run): Promise<void> {
  if (!grid) return;
  progress.update(`step ${trainer.step}: drawing samples`);
  const shown = await grid.draw(signal).catch((error) => {
    if (signal.aborted) return undefined;
    throw error;
  });
  if (!shown || signal.aborted) return;
  const png = await encodePng(drawGrid(shown), { step: trainer.step, ...grid.facts });
  await folder.writeSamples(trainer.step, png);
}

/** The model card in a model's file. */
const makeCard = ({ config, trainer, device }: Run) => ({
  software,
  ...cardOf(config, trainer.step, device.name),
});
