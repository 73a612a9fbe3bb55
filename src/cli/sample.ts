/**
 * `ddpm sample`: pictures from a model.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { type Device, LimitError } from "../gpu/device.ts";
import type { Model } from "../model/model.ts";
import type { Images, MethodName, SamplerOptions } from "../sample/sampler.ts";
import { methods, Sampler } from "../sample/sampler.ts";
import { NoiseSchedule } from "../model/schedule.ts";
import { shippedModels } from "../model/shipped.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "./device.ts";
import { loadModel } from "./files.ts";
import { type Flag, parseFlags } from "./flags.ts";
import { debugProgram } from "./profile.ts";
import { checkFits, checkOutput, writeImages } from "./pictures.ts";
import { formatTime, print, Progress } from "./progress.ts";

/** Images that are computed together at most. */
const MAX_BATCH = 64;
/** Steps where nobody says how many. */
const USUAL_STEPS = 50;
/** Frames of an animation at most. */
const MAX_FRAMES = 60;

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
    help: `evaluations of the network; default ${USUAL_STEPS}`,
  },
  sampler: {
    kind: "text",
    choices: Object.keys(methods),
    value: "NAME",
    help: `${Object.keys(methods).join(" or ")}; default ddpm`,
  },
  eta: { kind: "number", min: 0, max: 1, help: "noise that ddim adds, 0 to 1; default 0" },
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
  checkDeviceFlags(flags);
  const { count = 16, seed = 0, out = "samples.png", model: place = "mnist" } = flags;
  const method = (flags.sampler ?? "ddpm") as MethodName;
  const options = flags.eta === undefined ? {} : { eta: flags.eta };
  const kind = await checkOutput(out);
  const model = await loadModel(place);
  if (!model.config.sampleSize) {
    throw new InputError(`Cannot sample from ${place}: its configuration has no sample_size`);
  }
  const [height, width] = model.config.sampleSize;
  checkFits(kind, { count, height, width, channels: model.config.outChannels });
  checkLabel(flags.label, model.config.numClassEmbeds);
  const steps = flags.steps ?? Math.min(USUAL_STEPS, model.schedule.numTrainTimesteps);
  // What the schedule does not allow is refused here and not behind what a device says.
  methods[method].plan(new NoiseSchedule(model.schedule), steps, options);

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  progress.update(`compiling for ${device.name}`);
  const batchSize = Math.ceil(count / Math.ceil(count / MAX_BATCH));
  const began = performance.now();
  using sampler = await createSampler(device, model, { ...options, method, steps, batchSize });
  debugProgram(progress, sampler.describe());
  const compiled = performance.now(), frames: Images[] = [];
  const images = await sampler.sample({
    ...{ count, seed },
    ...(flags.label === undefined ? {} : { labels: new Array(count).fill(flags.label) }),
    ...(kind === "animation"
      ? {
        onSnapshot: (frame: Images, step: number) => void (step < steps && frames.push(frame)),
        snapshotEvery: Math.ceil(steps / MAX_FRAMES),
      }
      : {}),
    onProgress(done, total) {
      const seconds = (performance.now() - compiled) / 1000;
      const left = formatTime(seconds / done * (total - done));
      progress.update(`step ${done} of ${total}, ${left} left`);
    },
  });
  const written = await writeImages(out, kind, images, frames, {
    ...{ model: place, seed, steps, sampler: method },
    ...options,
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
