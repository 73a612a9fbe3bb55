/**
 * `ddpm interpolate`: images between two seeds or two pictures.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { interpolate, startNoise } from "../../sample/interpolate.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import type { Samples } from "../../sample/options.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "../terminal/device.ts";
import { readFile, refuseStdin } from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { INTERRUPTED } from "../run/interruption.ts";
import { openAnyModel } from "../run/open_model.ts";
import { checkDrawable, checkOutput, readPicture, writeImages } from "../media/picture_files.ts";
import { print, printError, Progress } from "../terminal/progress.ts";
import { classesOf, classFlags, defaultModel, planClasses } from "./class_flags.ts";
import { sampleFlags, shapeOf } from "./sample.ts";
import { createSampler, invert } from "./samplers.ts";
import { checkPreview, join, watch } from "../terminal/sampling_run.ts";

/** The flags of `interpolate`. */
export const interpolateFlags = {
  model: { ...sampleFlags.model, default: "mnist-unconditional; mnist with --class" },
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
  ...classFlags,
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
  const { count = 8, out = "interpolation.png" } = flags;
  const { model: place = defaultModel(flags, { isOfNone: true }) } = flags;
  if ((flags.seeds === undefined) === (flags.images === undefined)) {
    throw new InputError("Give two ends to interpolate between: --seeds A,B or --images A,B");
  }
  const ends = readPair(flags.seeds ?? flags.images!, flags.seeds ? "seeds" : "images");
  if (flags.images !== undefined) ends.forEach((path) => refuseStdin(path, "an image"));
  const output = await checkOutput(out), loaded = await openAnyModel(place);
  // Clipping cannot be inverted.
  const unclipped = { ...loaded.schedule, clipSample: false, thresholding: false };
  const model = flags.images === undefined ? loaded : { ...loaded, schedule: unclipped };
  const shape = shapeOf(model, place);
  const painted = paintedShape(model, shape);
  // A way for each class.
  const classes = planClasses(flags, classesOf(model, shape), place, {
    ...{ count: undefined, usual: 1, seed: 0, prefersNone: true },
  });
  const { count: ways, columns } = classes, total = ways * count;
  await checkDrawable(output, { count: total, shape: painted }, columns);
  const given: Samples[] | undefined = flags.images === undefined
    ? undefined
    : await Promise.all(ends.map(async (path) => readPicture(await readFile(path), path, painted)));
  const steps = flags.steps ??
    Math.min(given ? 100 : 50, model.schedule.numTrainTimesteps);

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  if (classes.notice) progress.say(`class: ${classes.notice}`);
  progress.update(`compiling for ${device.name}`);
  /** The classes of images of all ways, each `n` images long. */
  const labels = (n: number) =>
    classes.labels ? { labels: new Array(n).fill(classes.labels).flat() } : {};
  const noise = given
    ? split(
      await invert(device, model, steps, join(given.flatMap((end) => new Array(ways).fill(end))), {
        ...labels(2),
        onProgress: (done, total) => progress.update(`inverting: step ${done} of ${total}`),
      }),
      1,
    )
    : ends.flatMap((seed) => new Array(ways).fill(startNoise(shape, { seed: Number(seed) })));
  const found = noise.slice(0, ways).map((from, way) =>
    split(interpolate(from, noise[ways + way], count), 1)
  );
  const start = join(found[0].flatMap((_, k) => found.map((way) => way[k])));
  const batchSize = Math.min(total, 64);
  using sampler = await createSampler(device, model, { method: "ddim", steps, batchSize });
  const { images, isStopped } = await watch(sampler, "grid", flags.preview ?? false, progress, {
    ...{ count: total, start },
    ...labels(count),
  });
  if (!images.count) return INTERRUPTED;
  const [from, to] = ends, provenance = { model: place, from, to, steps, sampler: "ddim" };
  const arrangement = {
    columns,
    classes: classes.names && new Array(count).fill(classes.names).flat(),
  };
  const frames = split(images, ways);
  const written = output.kind === "animation"
    ? await writeImages(output, frames.pop()!, frames, provenance, arrangement)
    : await writeImages(output, images, [], provenance, arrangement);
  progress.clear();
  const tell = output.isStream ? printError : print;
  tell(`${written}: ${images.count} images from ${from} to ${to}`);
  return isStopped ? INTERRUPTED : 0;
}

/** Images in parts of so many. */
const split = ({ count, shape, data }: Samples, each: number): Samples[] =>
  Array.from({ length: Math.ceil(count / each) }, (_, i) => {
    const size = data.length / count, part = data.slice(i * each * size, (i + 1) * each * size);
    return { count: part.length / size, shape, data: part };
  });

function readPair(text: string, name: string): [string, string] {
  const parts = text.split(",").map((part) => part.trim());
  const isSeed = (part: string) => /^\d+$/.test(part) && Number.isSafeInteger(Number(part));
  if (parts.length === 2 && parts.every((part) => name === "seeds" ? isSeed(part) : part)) {
    return [parts[0], parts[1]];
  }
  const what = name === "seeds" ? "whole numbers" : "files";
  throw new InputError(`--${name} must be two ${what} with a comma between them, not ${text}`);
}
