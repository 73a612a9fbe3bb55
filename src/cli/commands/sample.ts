/**
 * `ddpm sample`: pictures from a model.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type Device, LimitError, type Precision } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { Shape } from "../../shape.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import { shippedModels } from "../../model/pretrained.ts";
import type { SamplerOptions } from "../../sample/options.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { Sampler } from "../../sample/sampler.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import {
  checkDeviceFlags,
  deviceFlags,
  openForCommand,
  precisionFlag,
} from "../terminal/device.ts";
import { loadModel } from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { INTERRUPTED } from "../run/interruption.ts";
import { checkFits, checkOutput, writeImages } from "../media/picture_files.ts";
import { debugProgram } from "../run/profile.ts";
import { classCount, classifierFlags, planClassifier } from "./classifier_flags.ts";
import { describeOptions, listMethods, readOptions, samplerFlags } from "./sampler_flags.ts";
import { checkPreview, watch } from "../terminal/sampling_run.ts";
import { print, Progress } from "../terminal/progress.ts";

/** Images that are computed together at most. */
const MAX_BATCH = 64;

/** What `sample` understands. */
export const sampleFlags = {
  model: {
    kind: "text",
    value: "MODEL",
    help: `a name (${shippedModels.join(", ")}), a .safetensors file, or a folder; default mnist`,
  },
  count: { kind: "integer", min: 1, max: 1_000_000, help: "images; default 16" },
  ...samplerFlags,
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "image k of a seed is always the same; default 0",
  },
  label: { kind: "integer", min: 0, help: "the class, for models that have classes" },
  ...classifierFlags,
  out: {
    kind: "text",
    value: "PATH",
    help:
      ".png (a grid), .gif or .apng (the denoising), .safetensors, or a folder; default samples.png",
  },
  precision: precisionFlag,
  preview: { kind: "switch", help: "draw in the terminal what the network takes the images for" },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function sampleCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, sampleFlags);
  if (rest.length) throw new InputError(`sample takes flags only, not ${rest[0]}`);
  if (flags.sampler === "list") {
    print(listMethods());
    return 0;
  }
  checkDeviceFlags(flags);
  checkPreview(flags.preview);
  const { count = 16, seed = 0, out = "samples.png", model: place = "mnist" } = flags;
  const method = (flags.sampler ?? defaultMethod) as MethodName;
  const options = readOptions(flags);
  const kind = await checkOutput(out);
  const model = await loadModel(place);
  const shape = shapeOf(model, place);
  checkFits(kind, { count, shape });
  const guidance = await planClassifier(flags, model, shape);
  checkLabel(flags.label, classCount(model, shape, guidance));
  // What the schedule does not allow is refused here and not behind what a device says.
  const plan = makeUpdateTable(
    methods[method],
    new NoiseSchedule(model.schedule),
    flags.steps,
    options,
  );
  const steps = plan.filter(({ endsStep = true }) => endsStep).length;

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  progress.update(`compiling for ${device.name}`);
  const batchSize = Math.ceil(count / Math.ceil(count / MAX_BATCH));
  const began = performance.now();
  using sampler = await createSampler(device, model, {
    ...options,
    ...(options.timesteps ? {} : { steps }),
    ...{ method, batchSize, wrap: guidance.wrap },
    precision: (flags.precision ?? "f32") as Precision,
  });
  debugProgram(progress, sampler.describe());
  const { images, frames, isStopped } = await watch(
    sampler,
    kind,
    flags.preview ?? false,
    progress,
    {
      ...{ count, seed },
      ...(flags.label === undefined ? {} : { labels: new Array(count).fill(flags.label) }),
    },
  );
  if (!images.count) return INTERRUPTED;
  const written = await writeImages(out, kind, images, frames, {
    ...{ model: place, seed, steps, sampler: method },
    ...describeOptions(options),
    ...guidance.facts,
    ...(isStopped ? { interrupted: "yes" } : {}),
  });
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const made = isStopped ? `${images.count} of ${count}` : `${count}`;
  const end = isStopped ? ", interrupted" : "";
  print(`${written}: ${made} ${count === 1 ? "image" : "images"} in ${seconds} s${end}`);
  return isStopped ? INTERRUPTED : 0;
}

/**
 * The shape of a model's pictures.
 *
 * @throws {InputError} If it makes none, or leaves their size open.
 */
export function shapeOf(model: Model, place: string): Shape {
  const { itemShape } = denoisingNetwork(model);
  if (itemShape.every((n) => n !== null)) return itemShape;
  throw new InputError(`Cannot sample from ${place}: its configuration has no sample_size`);
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

/** @throws {InputError} If a label is missing, superfluous, or no class of the model. */
export function checkLabel(label: number | undefined, classes: number | null): void {
  if (classes === null) {
    if (label !== undefined) throw new InputError("--label is for models with classes");
  } else if (label === undefined || label >= classes) {
    throw new InputError(
      `The model has ${classes} classes: give a --label from 0 to ${classes - 1}` +
        (label === undefined ? "" : `, not ${label}`),
    );
  }
}
