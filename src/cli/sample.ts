/**
 * `ddpm sample`: pictures from a model.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { type Device, LimitError } from "../gpu/device.ts";
import type { Model } from "../model/model.ts";
import { NoiseSchedule, type TimestepSpacing } from "../model/schedule.ts";
import { shippedModels } from "../model/shipped.ts";
import type { Images, MethodOptions, SamplerOptions, SigmaSpacing } from "../sample/options.ts";
import type { Method } from "../sample/plan.ts";
import { type MethodName, methods } from "../sample/registry.ts";
import { Sampler } from "../sample/sampler.ts";
import { makePlan } from "../sample/walk.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "./device.ts";
import { loadModel } from "./files.ts";
import { type Flag, type Flags, parseFlags } from "./flags.ts";
import { checkFits, checkOutput, writeImages } from "./pictures.ts";
import { debugProgram } from "./profile.ts";
import { formatTime, print, Progress } from "./progress.ts";

/** Images that are computed together at most. */
const MAX_BATCH = 64;
/** Frames of an animation at most. */
const MAX_FRAMES = 60;

/** Samplers that make images. */
const forward = Object.values(methods).filter((m) => !m.isInverse).map(({ name }) => name);

/** What `sample` understands. */
export const sampleFlags = {
  model: {
    kind: "text",
    value: "MODEL",
    help: `a name (${shippedModels.join(", ")}), a .safetensors file, or a folder; default mnist`,
  },
  count: { kind: "integer", min: 1, max: 1_000_000, help: "images; default 16" },
  steps: {
    kind: "integer",
    min: 1,
    max: 100_000,
    help: "steps from noise to image; default 50, 18 for edm, 4 for lcm",
  },
  sampler: {
    kind: "text",
    choices: [...forward, "list"],
    value: "NAME",
    help: "a name, or list, which tells them all; default ddpm",
  },
  eta: { kind: "number", min: 0, max: 1, help: "noise that ddim adds, 0 to 1; default 0" },
  churn: { kind: "number", min: 0, help: "noise that heun and edm add and take away; default 0" },
  spacing: {
    kind: "text",
    choices: ["leading", "linspace", "trailing"],
    value: "NAME",
    help: "which timesteps: leading, linspace or trailing",
  },
  sigmas: {
    kind: "text",
    choices: ["karras", "exponential", "polyexponential", "vp"],
    value: "NAME",
    help: "noise levels instead of timesteps: karras, exponential, polyexponential or vp",
  },
  timesteps: {
    kind: "text",
    value: "T,T,...",
    help: "the timesteps to visit, by hand, as 999,800,500,200",
  },
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "image k of a seed is always the same; default 0",
  },
  label: { kind: "integer", min: 0, help: "the class, for models that have classes" },
  out: {
    kind: "text",
    value: "PATH",
    help: ".png (a grid), .gif (the denoising), .safetensors, or a folder; default samples.png",
  },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function sampleCommand(args: readonly string[]): Promise<void> {
  const { flags, rest } = parseFlags(args, sampleFlags);
  if (rest.length) throw new InputError(`sample takes flags only, not ${rest[0]}`);
  if (flags.sampler === "list") return print(listMethods());
  checkDeviceFlags(flags);
  const { count = 16, seed = 0, out = "samples.png", model: place = "mnist" } = flags;
  const method = (flags.sampler ?? "ddpm") as MethodName;
  const options = readOptions(flags);
  const kind = await checkOutput(out);
  const model = await loadModel(place);
  if (!model.config.sampleSize) {
    throw new InputError(`Cannot sample from ${place}: its configuration has no sample_size`);
  }
  const [height, width] = model.config.sampleSize;
  checkFits(kind, { count, height, width, channels: model.config.inChannels });
  checkLabel(flags.label, model.config.numClassEmbeds);
  // What the schedule does not allow is refused here and not behind what a device says.
  const plan = makePlan(methods[method], new NoiseSchedule(model.schedule), flags.steps, options);
  const steps = plan.filter(({ endsStep = true }) => endsStep).length;

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  progress.update(`compiling for ${device.name}`);
  const batchSize = Math.ceil(count / Math.ceil(count / MAX_BATCH));
  const began = performance.now();
  using sampler = await createSampler(device, model, {
    ...options,
    ...(options.timesteps ? {} : { steps }),
    ...{ method, batchSize },
  });
  debugProgram(progress, sampler.describe());
  const compiled = performance.now(), frames: Images[] = [];
  const stream = sampler.stream({
    ...{ count, seed },
    ...(flags.label === undefined ? {} : { labels: new Array(count).fill(flags.label) }),
    every: kind === "animation" ? Math.ceil(steps / MAX_FRAMES) : steps,
    onProgress(done, total) {
      const seconds = (performance.now() - compiled) / 1000;
      const left = formatTime(seconds / done * (total - done));
      progress.update(`step ${done} of ${total}, ${left} left`);
    },
  });
  let next = await stream.next();
  for (; !next.done; next = await stream.next()) {
    if (next.value.step < steps) frames.push(next.value.noisy);
  }
  const images = next.value;
  const written = await writeImages(out, kind, images, frames, {
    ...{ model: place, seed, steps, sampler: method },
    ...(options.eta === undefined ? {} : { eta: options.eta }),
  });
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  print(`${written}: ${count} ${count === 1 ? "image" : "images"} in ${seconds} s`);
}

/** A sampler that computes no more images together than fit the device. */
export async function createSampler(
  device: Device,
  model: Model,
  options: SamplerOptions & { readonly batchSize: number },
): Promise<Sampler> {
  try {
    return await Sampler.create(device, model, options);
  } catch (error) {
    if (!(error instanceof LimitError) || options.batchSize === 1) throw error;
    const batchSize = Math.ceil(options.batchSize / 2);
    return await createSampler(device, model, { ...options, batchSize });
  }
}

/** The settings of the sampler that were given. */
function readOptions(flags: Flags<typeof sampleFlags>): MethodOptions {
  const { eta, churn, spacing, sigmas, timesteps } = flags;
  return {
    ...(eta === undefined ? {} : { eta }),
    ...(churn === undefined ? {} : { churn }),
    ...(spacing === undefined ? {} : { spacing: spacing as TimestepSpacing }),
    ...(sigmas === undefined ? {} : { sigmas: sigmas as SigmaSpacing }),
    ...(timesteps === undefined ? {} : { timesteps: readTimesteps(timesteps) }),
  };
}

function readTimesteps(text: string): number[] {
  const numbers = text.split(",").map((part) => part.trim() ? Number(part) : NaN);
  if (numbers.every(Number.isFinite)) return numbers;
  throw new InputError(`--timesteps must be numbers with commas, as 999,800,500, not ${text}`);
}

/** All samplers, a line each. */
function listMethods(): string {
  const rows = Object.values(methods).filter((m) => !m.isInverse).map((m: Method) => [
    m.name,
    String(m.order),
    String(m.evaluations),
    m.isStochastic ? "yes" : m.takes.includes("eta") ? "with eta" : "no",
    m.kind === "whole" ? m.isUneven ? "timesteps" : "even timesteps" : "timesteps, sigmas",
    m.summary,
  ]);
  rows.unshift(["sampler", "order", "evaluations", "noise", "walks", "what it is"]);
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd())
    .join("\n");
}

function checkLabel(label: number | undefined, classes: number | null): void {
  if (classes === null) {
    if (label !== undefined) throw new InputError("--label is for models with classes");
  } else if (label === undefined || label >= classes) {
    throw new InputError(
      `The model has ${classes} classes: give a --label from 0 to ${classes - 1}` +
        (label === undefined ? "" : `, not ${label}`),
    );
  }
}
