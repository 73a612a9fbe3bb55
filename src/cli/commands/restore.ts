/**
 * `ddpm restore`: pictures of which something is lost, by a model that was trained for nothing of the
 * kind.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type Device, LimitError, type Precision } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { conditionsOf } from "../../model/denoiser.ts";
import { type LinearOperator, operators } from "../../sample/guidance/operators.ts";
import type { RestorationMethod } from "../../sample/guidance/restored.ts";
import type { Raster } from "../../data/raster.ts";
import { pictureSize, type Samples } from "../../sample/options.ts";
import { makePicture } from "../../sample/pixels.ts";
import type { Provenance } from "../../sample/provenance.ts";
import {
  measure,
  type Restoration,
  restorationSteps,
  restore,
  type RestoreOptions,
} from "../../sample/restore.ts";
import type { Shape } from "../../shape.ts";
import {
  checkDeviceFlags,
  deviceFlags,
  openForCommand,
  precisionFlag,
} from "../terminal/device.ts";
import { loadModel } from "../run/load_model.ts";
import { writeOutput } from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { INTERRUPTED, Interruption } from "../run/interruption.ts";
import {
  checkDrawable,
  checkOutput,
  encodePng,
  fitPicture,
  readRaster,
  writeImages,
} from "../media/picture_files.ts";
import { print, printError, Progress } from "../terminal/progress.ts";
import { sampleFlags, shapeOf } from "./sample.ts";

/** Pictures that are computed together at most: gradients take memory. */
const MAX_BATCH = 32;

/** What `restore` understands. */
export const restoreFlags = {
  task: {
    kind: "text",
    value: "TASK",
    help: "superres:N (N times as wide and high), inpaint, deblur:SIGMA (in pixels) or colorize",
  },
  mask: { kind: "text", value: "PICTURE", help: "for inpaint: white is painted anew" },
  method: {
    kind: "text",
    choices: ["pigdm", "dps"] satisfies RestorationMethod[],
    value: "NAME",
    help: "pigdm, or dps, which is better and must be tuned; default pigdm",
  },
  zeta: {
    kind: "number",
    min: 0,
    max: 1e6,
    help: "length of the steps of dps; default 2, for superres:N 2 N, for 100 steps",
  },
  steps: {
    kind: "integer",
    min: 1,
    max: 100_000,
    help: `steps from noise to picture; default ${restorationSteps.pigdm}, of dps ` +
      `${restorationSteps.dps}`,
  },
  model: { ...sampleFlags.model, default: "mnist-unconditional" },
  seed: sampleFlags.seed,
  out: {
    kind: "text",
    value: "PATH",
    help:
      ".png (the picture, or several in a grid), .safetensors, or a folder; default restored.png",
  },
  precision: precisionFlag,
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** What is to be undone. */
interface Task {
  readonly name: keyof typeof operators;
  readonly operator: LinearOperator;
}

/** @throws {InputError} If it is none. */
function readTask(text: string | undefined): Task {
  const [, name, setting] = /^(\w+)(?::(.*))?$/.exec(text ?? "") ?? [], value = Number(setting);
  if ((name === "inpaint" || name === "colorize") && setting === undefined) {
    return { name, operator: operators[name]() };
  }
  if (name === "superres" && /^\d+$/.test(setting ?? "") && value >= 2 && value <= 64) {
    return { name, operator: operators.superres(value) };
  }
  if (name === "deblur" && setting && value > 0 && value <= 64) {
    return { name, operator: operators.deblur(value) };
  }
  const what = "superres:4 (2 to 64), inpaint, deblur:1.5 (up to 64) or colorize";
  throw new InputError(
    text === undefined ? `Say what is lost: --task ${what}` : `--task must be ${what}, not ${text}`,
  );
}

/** Runs the command. */
export async function restoreCommand(args: readonly string[]): Promise<number> {
  const { flags, rest: paths } = parseFlags(args, restoreFlags), task = readTask(flags.task);
  checkDeviceFlags(flags);
  const { out = "restored.png", model: place = "mnist-unconditional", seed = 0 } = flags;
  const method = (flags.method ?? "pigdm") as RestorationMethod, count = paths.length;
  const { steps = restorationSteps[method] } = flags;
  if (!count) throw new InputError("restore needs pictures: ddpm restore IN.png --task superres:4");
  if ((task.name === "inpaint") !== (flags.mask !== undefined)) {
    throw new InputError(
      flags.mask === undefined
        ? "--task inpaint needs a --mask, which is white where the picture is lost"
        : `--mask is for --task inpaint, not ${task.name}`,
    );
  }
  if (flags.zeta !== undefined && method !== "dps") {
    throw new InputError("--zeta is for --method dps: pigdm needs no tuning");
  }
  const output = await checkOutput(out), { kind } = output;
  if (kind === "animation") {
    throw new InputError(`Cannot write ${out}: give a name that ends in .png, or a folder`);
  }
  const model = await loadModel(place), shape = shapeOf(model, place);
  checkModel(model, place, shape);
  await checkDrawable(output, { count, shape });
  task.operator.measured(shape);

  using progress = new Progress();
  const inputs = await readInputs(paths, task, shape, flags.mask, progress);
  using device = await openForCommand(flags, progress);
  using interruption = new Interruption(progress, "stopping");
  progress.update(`compiling for ${device.name}`);
  const began = performance.now(), { signal } = interruption;
  const conditions = inputs.mask ? { mask: inputs.mask } : {};
  const measurement = inputs.isMeasured
    ? inputs.pictures
    : await measure(device, task.operator, inputs.pictures, conditions);
  const restoration = await restoreThatFits(device, model, task.operator, measurement, {
    ...{ method, steps, seed, conditions, signal },
    ...(flags.zeta === undefined ? {} : { zeta: flags.zeta }),
    precision: (flags.precision ?? "f32") as Precision,
    batchSize: Math.ceil(count / Math.ceil(count / MAX_BATCH)),
    onProgress: (done, total) => progress.update(`step ${done} of ${total}`),
  });
  if (!restoration) return INTERRUPTED;
  const { images, found, left } = restoration;
  const provenance: Provenance = {
    ...{ model: place, task: flags.task!, method, steps, seed },
    ...(flags.zeta === undefined ? {} : { zeta: flags.zeta }),
  };
  const isOne = kind === "grid" && count === 1;
  if (isOne) await writeOutput(output.path, await encodePng(makePicture(images, 0), provenance));
  const written = !isOne
    ? await writeImages(output, images, [], provenance)
    : output.isStream
    ? "standard output"
    : out;
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const far = (values: readonly number[]) => Math.max(...values).toFixed(4);
  const tell = output.isStream ? printError : print;
  tell(
    `${written}: ${count} ${
      count === 1 ? "picture" : "pictures"
    } in ${seconds} s; what is known of ` +
      `${count === 1 ? "it" : "them"} is met to ${far(left)} rms, of a range of 2, and was to ` +
      `${far(found)} before the last correction`,
  );
  return 0;
}

/** @throws {InputError} If it has to be told classes. */
function checkModel(model: Model, place: string, shape: Shape): void {
  const needed = Object.entries(conditionsOf(model, shape))
    .find(([, { none }]) => none === undefined)?.[0];
  if (needed === undefined) return;
  throw new InputError(
    `Cannot restore with ${place}: it has to be told ${needed}; take an unconditional model, or one ` +
      "trained with --label-dropout",
  );
}

/** Restores as many pictures at a time as fit the device; `undefined` if it was interrupted. */
async function restoreThatFits(
  device: Device,
  model: Model,
  operator: LinearOperator,
  measurement: Samples,
  options: RestoreOptions & { readonly batchSize: number; readonly signal: AbortSignal },
): Promise<Restoration | undefined> {
  try {
    return await restore(device, model, operator, measurement, options);
  } catch (error) {
    if (options.signal.aborted) return undefined;
    if (!(error instanceof LimitError) || options.batchSize === 1) throw error;
    const batchSize = Math.ceil(options.batchSize / 2);
    return await restoreThatFits(device, model, operator, measurement, { ...options, batchSize });
  }
}

/** Pictures as a task takes them. */
interface Inputs {
  readonly pictures: Samples;
  /** Whether they are what is left, or have to be reduced to that. */
  readonly isMeasured: boolean;
  /** 1 where they are painted, of each. */
  readonly mask?: Float32Array;
}

/**
 * Reads pictures, and brings them to the size of the model's, or to that of what is left of those.
 *
 * @throws {InputError} If one cannot be used, or the mask is not of its size.
 */
async function readInputs(
  paths: readonly string[],
  { name, operator }: Task,
  shape: Shape,
  maskPath: string | undefined,
  progress: Progress,
): Promise<Inputs> {
  const { height, width } = pictureSize({ shape }), small = operator.measured(shape);
  const rasters = await Promise.all(paths.map(readRaster));
  // A small picture is what is left; of a large one, first what would be left of it.
  const areSmall = rasters.map((r) => r.width < width && r.height < height);
  const isMeasured = name !== "superres" || areSmall[0];
  const odd = areSmall.indexOf(!areSmall[0]);
  if (name === "superres" && odd >= 0) {
    throw new InputError(
      `Cannot restore ${paths[0]} and ${paths[odd]} together: one is smaller than the model's ` +
        `${width}x${height}, and the other one is to be reduced first`,
    );
  }
  const target = isMeasured ? small : shape, size = `${target[1]}x${target[0]}`;
  const parts = rasters.map((raster, i) => {
    const own = `${raster.width}x${raster.height}`,
      changes = [
        ...(own === size ? [] : [`brought to ${size}`]),
        ...(isMeasured ? [] : [`reduced to ${small[1]}x${small[0]} first`]),
        ...(target[2] === 1 && isColored(raster) ? ["made grey"] : []),
      ];
    const taken = name === "superres" && isMeasured ? ", taken for what is left" : "";
    if (changes.length || taken) {
      progress.say([`${paths[i]}: ${own}${taken}`, ...changes].join(", "));
    }
    return fitPicture(raster, target, paths[i]);
  });
  const data = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (data.set(part, at), at + part.length), 0);
  const pictures = { count: paths.length, shape: target, data };
  if (maskPath === undefined) return { pictures, isMeasured };
  const mask = await readMask(maskPath, shape, rasters.map((r, i) => ({ ...r, path: paths[i] })));
  const masks = Float32Array.from(
    { length: mask.length * paths.length },
    (_, i) => mask[i % mask.length],
  );
  return { pictures, isMeasured: false, mask: masks };
}

/** Whether a picture has colors other than greys. */
const isColored = ({ channels, data }: Raster): boolean =>
  channels > 2 && data.some((v, i) => i % channels < 3 && v !== data[i - i % channels]);

/** @throws {InputError} If it is not as large as the pictures, or leaves nothing to do, or to keep. */
async function readMask(
  path: string,
  shape: Shape,
  pictures: readonly { readonly width: number; readonly height: number; readonly path: string }[],
): Promise<Float32Array> {
  const raster = await readRaster(path);
  const other = pictures.find((p) => p.width !== raster.width || p.height !== raster.height);
  if (other) {
    throw new InputError(
      `The mask ${path} is ${raster.width}x${raster.height}, but the picture ${other.path} is ` +
        `${other.width}x${other.height}`,
    );
  }
  const values = fitPicture(raster, shape.with(2, 1), path).map((v) => v > 0 ? 1 : 0);
  const painted = values.reduce((sum, v) => sum + v, 0);
  if (painted && painted < values.length) return values;
  throw new InputError(
    painted
      ? `The mask ${path} is white everywhere: nothing is known of the picture`
      : `The mask ${path} is black everywhere: there is nothing to paint; white is painted`,
  );
}
