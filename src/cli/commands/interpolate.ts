/**
 * `ddpm interpolate`: images between two seeds or two pictures.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { interpolate, startNoise } from "../../sample/interpolate.ts";
import type { Samples } from "../../sample/options.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "../terminal/device.ts";
import { loadModel, readFile, refuseStdin } from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { INTERRUPTED } from "../run/interruption.ts";
import { checkFits, checkOutput, readPicture, writeImages } from "../media/picture_files.ts";
import { print, printError, Progress } from "../terminal/progress.ts";
import { invert } from "./invert.ts";
import { checkLabel, createSampler, sampleFlags, shapeOf } from "./sample.ts";
import { checkPreview, watch } from "../terminal/sampling_run.ts";

/** The flags of `interpolate`. */
export const interpolateFlags = {
  model: sampleFlags.model,
  seeds: { kind: "text", value: "A,B", help: "interpolate between the images of two seeds" },
  images: {
    kind: "text",
    value: "A,B",
    help: "interpolate between two image files, through the noise that DDIM inversion finds",
  },
  count: {
    kind: "integer",
    min: 2,
    max: 10_000,
    default: 8,
    help: "number of images, both ends included",
  },
  steps: {
    kind: "integer",
    min: 1,
    max: 100_000,
    default: "50; 100 with --images",
    help: "DDIM steps",
  },
  label: sampleFlags.label,
  out: {
    kind: "text",
    value: "PATH",
    default: "interpolation.png",
    help:
      "what to write: .png (a grid), .gif or .apng (one after the other), .safetensors (raw floats), a folder (one PNG per image), or - (a PNG on standard output)",
  },
  preview: sampleFlags.preview,
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function interpolateCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, interpolateFlags);
  if (rest.length) throw new InputError(`interpolate takes flags only, not ${rest[0]}`);
  checkDeviceFlags(flags);
  checkPreview(flags.preview);
  const { count = 8, out = "interpolation.png", model: place = "mnist" } = flags;
  if ((flags.seeds === undefined) === (flags.images === undefined)) {
    throw new InputError("Give two ends to interpolate between: --seeds A,B or --images A,B");
  }
  const ends = readPair(flags.seeds ?? flags.images!, flags.seeds ? "seeds" : "images");
  if (flags.images !== undefined) ends.forEach((path) => refuseStdin(path, "an image"));
  const output = await checkOutput(out), loaded = await loadModel(place);
  // Clipping cannot be inverted.
  const unclipped = { ...loaded.schedule, clipSample: false, thresholding: false };
  const model = flags.images === undefined ? loaded : { ...loaded, schedule: unclipped };
  const shape = shapeOf(model, place);
  await checkFits(output, { count, shape });
  checkLabel(flags.label, model.network.conditions(shape).labels?.below ?? null);
  const given: Samples[] | undefined = flags.images === undefined
    ? undefined
    : await Promise.all(ends.map(async (path) => readPicture(await readFile(path), path, shape)));
  const steps = flags.steps ??
    Math.min(given ? 100 : 50, model.schedule.numTrainTimesteps);

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  progress.update(`compiling for ${device.name}`);
  const labels = (n: number) =>
    flags.label === undefined ? {} : { labels: new Array(n).fill(flags.label) };
  const noise = given
    ? await invert(device, model, steps, given, {
      ...labels(2),
      onProgress: (done, total) => progress.update(`inverting: step ${done} of ${total}`),
    })
    : ends.map((seed) => startNoise(shape, { seed: Number(seed) }));
  const start = interpolate(noise[0], noise[1], count);
  const batchSize = Math.min(count, 64);
  using sampler = await createSampler(device, model, { method: "ddim", steps, batchSize });
  const watched = await watch(sampler, "grid", flags.preview ?? false, progress, {
    ...{ count, start },
    ...labels(count),
  });
  if (!watched.images.count) return INTERRUPTED;
  const [from, to] = ends, provenance = { model: place, from, to, steps, sampler: "ddim" };
  const images = watched.images, each = images.data.length / images.count;
  const frames = Array.from({ length: images.count }, (_, i) => ({
    ...images,
    ...{ count: 1, data: images.data.slice(i * each, (i + 1) * each) },
  }));
  const written = output.kind === "animation"
    ? await writeImages(output, frames[frames.length - 1], frames.slice(0, -1), provenance)
    : await writeImages(output, images, [], provenance);
  progress.clear();
  const tell = output.isStream ? printError : print;
  tell(`${written}: ${images.count} images from ${from} to ${to}`);
  return watched.isStopped ? INTERRUPTED : 0;
}

function readPair(text: string, name: string): [string, string] {
  const parts = text.split(",").map((part) => part.trim());
  const isSeed = (part: string) => /^\d+$/.test(part) && Number.isSafeInteger(Number(part));
  if (parts.length === 2 && parts.every((part) => name === "seeds" ? isSeed(part) : part)) {
    return [parts[0], parts[1]];
  }
  const what = name === "seeds" ? "whole numbers" : "files";
  throw new InputError(`--${name} must be two ${what} with a comma between them, not ${text}`);
}
