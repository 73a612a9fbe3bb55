/**
 * `ddpm sample`: generates images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type Device, LimitError, type Precision } from "../../gpu/device.ts";
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
import { editFlags, readEdit } from "./edit.ts";
import { invert } from "./invert.ts";
import { vary } from "../../sample/interpolate.ts";
import { describeOptions, listMethods, readOptions, samplerFlags } from "./sampler_flags.ts";
import { checkPreview, watch } from "../terminal/sampling_run.ts";
import { print, printError, Progress } from "../terminal/progress.ts";

/** The largest batch. */
const MAX_BATCH = 64;

/** The flags of `sample`. */
export const sampleFlags = {
  model: {
    kind: "text",
    value: "MODEL",
    default: "mnist",
    help: `a pretrained model (${
      shippedModels.join(", ")
    }), a .safetensors file, or the folder of a training or of a diffusers checkpoint`,
  },
  count: { kind: "integer", min: 1, max: 1_000_000, default: 16, help: "number of images" },
  ...samplerFlags,
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    help: "random seed; image k of a seed does not depend on --count",
  },
  label: { kind: "integer", min: 0, help: "class to generate, for class-conditional models" },
  out: {
    kind: "text",
    value: "PATH",
    default: "samples.png",
    help:
      "what to write: .png (a grid), .gif or .apng (the denoising), .safetensors (raw floats), a folder (one PNG per image), or - (a PNG on standard output; also gif:-, apng:-, safetensors:-)",
  },
  ...editFlags,
  precision: precisionFlag,
  preview: {
    kind: "switch",
    help: "preview the current x₀ estimate in the terminal while sampling",
  },
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
  const output = await checkOutput(out);
  const loaded = await loadModel(place);
  const shape = shapeOf(loaded, place);
  using progress = new Progress();
  const edit = await readEdit(flags, shape, flags.sampler as MethodName | undefined, progress);
  const { variation } = edit;
  const method = edit.sampler.method ?? (variation ? "ddim" : undefined) ??
    (flags.sampler ?? defaultMethod) as MethodName;
  if (variation && flags.sampler && flags.sampler !== "ddim") {
    throw new InputError(
      "--variation samples with ddim: leave out --sampler",
    );
  }
  // Clipping cannot be inverted.
  const model = variation
    ? { ...loaded, schedule: { ...loaded.schedule, clipSample: false, thresholding: false } }
    : loaded;
  const options = { ...readOptions(flags), ...edit.sampler };
  const asked = flags.steps ?? edit.sampler.steps;
  await checkFits(output, { count, shape });
  const classes = model.network.conditions(shape).labels?.below ?? null;
  checkLabel(flags.label, classes);
  if (flags.region !== undefined) checkLabel(flags["other-class"], classes, "other-class");
  // Invalid options are reported before the device is opened and prints its notes.
  const plan = makeUpdateTable(
    methods[method],
    new NoiseSchedule(model.schedule),
    asked,
    options,
  );
  const steps = plan.filter(({ endsStep = true }) => endsStep).length;

  using device = await openForCommand(flags, progress);
  progress.update(`compiling for ${device.name}`);
  const batchSize = Math.ceil(count / Math.ceil(count / MAX_BATCH));
  const began = performance.now();
  using sampler = await createSampler(device, model, {
    ...options,
    ...(asked === undefined ? {} : { steps: asked }),
    ...{ method, batchSize, wrap: edit.wrap },
    precision: (flags.precision ?? "f32") as Precision,
  });
  debugProgram(progress, sampler.describe());
  const labels = (n: number) =>
    flags.label === undefined ? {} : { labels: new Array(n).fill(flags.label) };
  const start = variation && vary(
    (await invert(device, model, steps, [variation.of], {
      ...labels(1),
      onProgress: (done, total) => progress.update(`inverting: step ${done} of ${total}`),
    }))[0],
    variation.amount,
    { seed, count },
  );
  const { images, frames, isStopped } = await watch(
    sampler,
    output.kind,
    flags.preview ?? false,
    progress,
    {
      ...{ count, seed, ...edit.sample },
      ...(start ? { start } : {}),
      ...labels(count),
    },
  );
  if (!images.count) return INTERRUPTED;
  const written = await writeImages(output, edit.finish(images), frames, {
    ...{ model: place, seed, steps, sampler: method },
    ...describeOptions(readOptions(flags)),
    ...edit.provenance,
    ...(isStopped ? { interrupted: "yes" } : {}),
  });
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const made = isStopped ? `${images.count} of ${count}` : `${count}`;
  const end = isStopped ? ", interrupted" : "";
  const tell = output.isStream ? printError : print;
  tell(`${written}: ${made} ${count === 1 ? "image" : "images"} in ${seconds} s${end}`);
  return isStopped ? INTERRUPTED : 0;
}

/**
 * The shape of a model's images.
 *
 * @throws {InputError} If it leaves their size open.
 */
export function shapeOf({ network: { itemShape } }: Model, place: string): Shape {
  if (itemShape.every((n) => n !== null)) return itemShape;
  throw new InputError(`Cannot sample from ${place}: its configuration has no sample_size`);
}

/** Compiles a sampler, halving the batch until it fits the device. */
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

/** @throws {InputError} If a label is missing, superfluous, or not a class of the model. */
export function checkLabel(
  label: number | undefined,
  classes: number | null,
  flag = "label",
): void {
  if (classes === null) {
    if (label !== undefined) {
      throw new InputError(`--${flag} is for models with classes, and this one has none`);
    }
  } else if (label === undefined || label >= classes) {
    throw new InputError(
      `The model has ${classes} classes: give a --${flag} from 0 to ${classes - 1}` +
        (label === undefined ? "" : `, not ${label}`),
    );
  }
}
