/**
 * `ddpm upscale`: pictures enlarged by a model of super-resolution.
 *
 * @module
 */

import { basename, extname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import type { Precision } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import { type ImageHeader, readImageHeader } from "../../data/datasets/image.ts";
import { convert } from "../../data/raster.ts";
import type { Samples } from "../../sample/options.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { textsOf } from "../../sample/provenance.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import {
  checkNoiseLevel,
  factorOf,
  knowsNoise,
  type UpscaleOptions,
} from "../../sample/upscaler.ts";
import { decodeImage } from "../data/decode.ts";
import { writePng } from "../media/png_stream.ts";
import { INTERRUPTED, Interruption } from "../run/interruption.ts";
import { loadModel } from "../run/load_model.ts";
import { freeMemory } from "../run/memory.ts";
import {
  checkDeviceFlags,
  deviceFlags,
  openForCommand,
  precisionFlag,
} from "../terminal/device.ts";
import {
  checkFolder,
  checkWritable,
  kindOfOutput,
  makeFolder,
  readFile,
  writeWhole,
} from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { formatLeft, print, Progress } from "../terminal/progress.ts";
import { software } from "../terminal/version.ts";
import { formatBytes } from "../../units.ts";
import { classesOf, classFlags, planClasses } from "./class_flags.ts";
import { createUpscaler, noiseLevelFlag, tileOf } from "./upscaling.ts";
import { describeOptions, listMethods, readOptions, samplerFlags } from "./sampler_flags.ts";

/** Tiles that are computed together at most. */
const MAX_BATCH = 64;

/** What `upscale` understands. */
export const upscaleFlags = {
  model: {
    kind: "text",
    value: "MODEL",
    help: "a .safetensors file, or a folder, of train --objective super-resolution",
  },
  out: {
    kind: "text",
    value: "PATH",
    help: ".png, or a folder for several pictures; default upscaled.png",
  },
  ...samplerFlags,
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    help: "of the noise; default 0",
  },
  ...classFlags,
  "noise-level": {
    ...noiseLevelFlag,
    help: "noise to add to the pictures, so that what is wrong in them is not kept; default 0",
  },
  precision: precisionFlag,
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function upscaleCommand(args: readonly string[]): Promise<number> {
  const { flags, rest: paths } = parseFlags(args, upscaleFlags);
  if (flags.sampler === "list") {
    print(listMethods());
    return 0;
  }
  checkDeviceFlags(flags);
  if (!paths.length) throw new InputError("upscale needs pictures: upscale a.png --model MODEL");
  const { seed = 0, model: place, "noise-level": noiseLevel = 0 } = flags;
  if (place === undefined) {
    throw new InputError("upscale needs --model: what train --objective super-resolution made");
  }
  const method = (flags.sampler ?? defaultMethod) as MethodName, options = readOptions(flags);
  const outputs = await outputsOf(paths, flags.out ?? "upscaled.png");
  const model = await loadModel(place), channels = channelsOf(model, place);
  checkNoiseLevel(noiseLevel, knowsNoise(model));
  const { labels, notice } = planClasses(flags, classesOf(model, tileOf(model, place)), place, {
    ...{ count: paths.length, usual: paths.length, seed, prefersNone: true },
  });
  const schedule = new NoiseSchedule(model.schedule);
  makeUpdateTable(methods[method], schedule, flags.steps, options);
  const sizes = await Promise.all(paths.map((path) => checkPicture(path, channels)));

  using progress = new Progress();
  using device = await openForCommand(flags, progress);
  if (notice) progress.say(`class: ${notice}`);
  progress.update(`compiling for ${device.name}`);
  const began = performance.now();
  using upscaler = await createUpscaler(device, model, {
    ...{ ...options, method, precision: (flags.precision ?? "f32") as Precision },
    ...(flags.steps === undefined ? {} : { steps: flags.steps }),
    batchSize: Math.min(MAX_BATCH, tilesOf(sizes, tileOf(model, place))),
  });
  using interruption = new Interruption(progress, "the picture at work is not written");
  const { signal } = interruption, { factor } = upscaler, { steps } = upscaler.sampler;
  for (const [i, path] of paths.entries()) {
    const pictures = await readPixels(path, channels, progress), started = performance.now();
    const [height, width] = pictures.shape.map((side) => side * factor);
    const settings: UpscaleOptions = {
      ...{ pictures, seed, noiseLevel, signal },
      ...(labels ? { labels: [labels[i]] } : {}),
      onProgress(done, total) {
        progress.update(
          `${path}: step ${done} of ${total}${
            formatLeft(done, total, (performance.now() - started) / 1000)
          }`,
        );
      },
    };
    const texts = textsOf({
      ...{ model: place, picture: basename(path), seed, steps, sampler: method },
      ...describeOptions(options),
      ...(noiseLevel ? { "noise-level": noiseLevel } : {}),
    }, software);
    const stopped = new Error("stopped");
    const rows = async function* () {
      for await (const { data } of upscaler.rows(settings)) yield toBytes(data);
      if (signal.aborted) throw stopped;
    };
    try {
      if (outputs.folder) await makeFolder(outputs.folder);
      await writeWhole(outputs.paths[i], async (file) => {
        await writePng(file, { width, height, channels, texts }, rows());
      });
    } catch (error) {
      if (signal.aborted) return INTERRUPTED;
      throw error;
    }
    progress.clear();
    const seconds = ((performance.now() - (i ? started : began)) / 1000).toFixed(1);
    print(`${outputs.paths[i]}: ${width}x${height} pixels in ${seconds} s`);
  }
  return 0;
}

/** Where enlarged pictures are written. */
interface Outputs {
  readonly paths: readonly string[];
  /** The folder, if there is to be one. */
  readonly folder?: string;
}

/** @throws {InputError} If a path names no place for so many pictures. */
async function outputsOf(pictures: readonly string[], out: string): Promise<Outputs> {
  const isFolder = /[/\\]$/.test(out) || await kindOfOutput(out) === "folder" || !extname(out);
  if (!isFolder) {
    if (extname(out).toLowerCase() !== ".png") {
      throw new InputError(`Cannot write ${out}: give a name that ends in .png, or a folder`);
    }
    if (pictures.length > 1) {
      throw new InputError(
        `Cannot write ${pictures.length} pictures to ${out}: give --out a folder`,
      );
    }
    await checkWritable(out);
    return { paths: [out] };
  }
  await checkFolder(out);
  const paths = pictures.map((path) =>
    join(out, `${basename(path).slice(0, -extname(path).length || undefined)}.png`)
  );
  const twice = paths.findIndex((path, i) => paths.indexOf(path) !== i);
  if (twice >= 0) {
    throw new InputError(
      `Cannot write to ${out}: ${pictures[paths.indexOf(paths[twice])]} and ${pictures[twice]} ` +
        `would both be ${paths[twice]}`,
    );
  }
  return { paths, folder: out };
}

/** @throws {InputError} If the model enlarges nothing, or no pictures. */
function channelsOf(model: Model, place: string): 1 | 3 {
  factorOf(model);
  const [, , channels] = tileOf(model, place);
  if (channels === 1 || channels === 3) return channels;
  throw new InputError(`Cannot enlarge by ${place}: its images have ${channels} channels`);
}

/**
 * Looks at a picture before any is read.
 *
 * @throws {InputError} If it cannot be read, or there is not enough memory for it.
 */
async function checkPicture(path: string, channels: number): Promise<ImageHeader> {
  const header = readImageHeader(await readFile(path), path);
  checkMemory(path, header, channels, freeMemory());
  return header;
}

/** @throws {InputError} If a picture takes more memory than is free. */
export function checkMemory(
  path: string,
  { width, height }: Pick<ImageHeader, "width" | "height">,
  channels: number,
  free: number | undefined,
): void {
  const bytes = width * height * bytesOfPixel(channels);
  if (free === undefined || bytes <= free) return;
  throw new InputError(
    `Cannot enlarge ${path}: its ${width}x${height} pixels take ${formatBytes(bytes)} of memory, ` +
      `and ${formatBytes(free)} are free`,
  );
}

/**
 * Bytes that a pixel of a picture takes while it is read: decoded, copied, and as floats. What is made
 * of it is written as it comes.
 */
const bytesOfPixel = (channels: number) => 4 + 4 + channels + 4 * channels;

/** How many tiles the largest of the pictures is, or more: those that overlap are not counted. */
const tilesOf = (sizes: readonly ImageHeader[], [height, width]: readonly number[]) =>
  Math.max(...sizes.map((size) => 16 * Math.ceil(size.width * size.height / (height * width))));

/** A picture as a network sees it, over white where it is transparent. */
async function readPixels(path: string, channels: number, progress: Progress): Promise<Samples> {
  const raster = await decodeImage(await readFile(path), path), { height, width } = raster;
  const isTransparent = raster.channels % 2 === 0 &&
    raster.data.some((alpha, i) => i % raster.channels === raster.channels - 1 && alpha < 255);
  if (isTransparent) progress.say(`note: ${path} is transparent: it is laid over white`);
  if (channels === 1 && raster.channels > 2) {
    progress.say(`note: the model is of grey images: ${path} loses its color`);
  }
  const { data } = convert(raster, channels, [255, 255, 255]);
  return {
    ...{ count: 1, shape: [height, width, channels] },
    data: Float32Array.from(data, (x) => x / 127.5 - 1),
  };
}

/** Values in [-1, 1] as bytes, to the nearest. */
const toBytes = (data: Float32Array): Uint8Array =>
  Uint8Array.from(data, (x) => Math.round((x + 1) * 127.5));
