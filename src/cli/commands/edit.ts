/**
 * The flags of `sample` for editing images, and the sampler options that follow from them.
 *
 * @module
 */

import { fit, type Raster, writeImage } from "../../data/raster.ts";
import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import type { Shape } from "../../shape.ts";
import { inpaint } from "../../sample/editing/inpaint.ts";
import { regions } from "../../sample/editing/regions.ts";
import { keepKnown, latentMasks } from "../../sample/latent_pictures.ts";
import {
  pictureSize,
  type SampleOptions,
  type SamplerOptions,
  type Samples,
  strengthOf,
} from "../../sample/options.ts";
import { type MethodName, methods } from "../../sample/solvers/mod.ts";
import { decodeImage } from "../data/decode.ts";
import { readFile, refuseStdin } from "../terminal/files.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import type { Progress } from "../terminal/progress.ts";

/** With a mask: the default number of steps, and RePaint's jump length and number of passes. */
const MASK_STEPS = 50, MASK_JUMP = 5, MASK_TIMES = 5;

/** The flags of `sample` for editing. */
export const editFlags = {
  init: {
    kind: "text",
    value: "IMAGE",
    help: "start from this image with noise added, not from noise alone (image to image)",
  },
  strength: {
    kind: "number",
    min: 0,
    max: 1,
    default: "0.6; 1 with --mask or --outpaint",
    help: "how much of --init changes, from 0 (nothing) to 1 (everything)",
  },
  mask: {
    kind: "text",
    value: "IMAGE",
    help: "repaint --init where this image is white, or with alpha where --init is transparent",
  },
  outpaint: {
    kind: "text",
    value: "N",
    help: "shrink --init and paint N pixels around it, or LEFT,TOP,RIGHT,BOTTOM pixels",
  },
  resample: {
    kind: "integer",
    min: 1,
    max: 1000,
    default: MASK_TIMES,
    help: "with --mask or --outpaint, how often each part of the steps is taken (RePaint)",
  },
  jump: {
    kind: "integer",
    min: 1,
    max: 10_000,
    default: MASK_JUMP,
    help: "with --mask or --outpaint, the steps in such a part",
  },
  variation: {
    kind: "number",
    min: 0,
    max: 1,
    help: "variations of --init: how much the noise of its DDIM inversion changes, from 0 to 1",
  },
  region: {
    kind: "text",
    value: "IMAGE",
    help: "generate --other-class where this image is white",
  },
  "other-class": {
    kind: "text",
    value: "NAME,...",
    help: "classes in --region, names or numbers, in turns",
  },
} as const satisfies Record<string, Flag>;

/** The flags that were given. */
export type EditFlags = Flags<typeof editFlags>;

/** An edit as options of a sampler. */
export interface Edit {
  readonly wrap: readonly DenoiserWrapper[];
  readonly sampler: Pick<SamplerOptions, "resample" | "steps" | "method">;
  readonly sample: Pick<SampleOptions, "init" | "strength" | "conditions">;
  /** The image to vary, and how much. */
  readonly variation?: { readonly of: Samples; readonly amount: number };
  /** Metadata for the files. */
  readonly provenance: Readonly<Record<string, string | number>>;
  /** Restores what was to be kept, of pixels; a sampler of latents does it itself. */
  readonly finish: (images: Samples) => Samples;
}

/**
 * Reads the flags and their images.
 *
 * @param shape The shape of the model's pictures.
 * @param method The value of --sampler.
 * @param factor Of a model of latents, how many times smaller than pictures these are.
 * @param read What is at a path.
 * @throws {InputError} If they contradict each other, or an image cannot be used.
 */
export async function readEdit(
  flags: EditFlags,
  shape: Shape,
  method: MethodName | undefined,
  progress: Pick<Progress, "say">,
  factor: number | undefined,
  read: (path: string) => Promise<Uint8Array<ArrayBuffer>> = readFile,
): Promise<Edit> {
  const { picture, mask, provenance } = await readInit(flags, shape, progress, read);
  const open = opening(progress, read);
  refuseStdin(flags.region ?? "", "an image");
  const painted = flags.region === undefined
    ? undefined
    : await readMask(flags.region, shape, open);
  if (painted && !painted.values.some((v) => v)) {
    throw new InputError(
      `--region ${flags.region} is black everywhere: it leaves no place for --other-class`,
    );
  }
  const region = painted?.values;
  if (factor) {
    const flag = flags.mask === undefined ? "--outpaint" : "--mask";
    if (mask) latentMasks(mask, shape, factor, flag);
    if (region) latentMasks(region, shape, factor, "--region");
  }
  const chosen = method ?? (mask ? "ddpm" : undefined);
  const isFresh = chosen === undefined || methods[chosen].isStochastic;
  return {
    wrap: [
      ...(region ? [regions] : []),
      ...(mask ? [inpaint({ noise: isFresh ? "fresh" : "fixed" })] : []),
    ],
    sampler: {
      ...(mask && !method ? { method: "ddpm", steps: MASK_STEPS } : {}),
      ...(mask
        ? { resample: { jump: flags.jump ?? MASK_JUMP, times: flags.resample ?? MASK_TIMES } }
        : {}),
    },
    sample: {
      ...(picture && flags.variation === undefined && (!mask || flags.strength !== undefined)
        ? { init: picture, strength: strengthOf(flags) }
        : {}),
      conditions: {
        ...(mask && picture ? { mask, known: picture.data } : {}),
        ...(region ? { region } : {}),
      },
    },
    ...(picture && flags.variation !== undefined
      ? { variation: { of: picture, amount: flags.variation } }
      : {}),
    provenance,
    finish: (images) => mask && picture && !factor ? keepKnown(images, picture, mask) : images,
  };
}

/** A picture to begin with, and where to paint in it. */
export interface Init {
  readonly picture: Samples | undefined;
  /** 1 where pixels are painted, `[height, width]`. */
  readonly mask: Float32Array | undefined;
  /** The flags of edits, as metadata for the files. */
  readonly provenance: Readonly<Record<string, string | number>>;
}

/**
 * Reads the image of --init, and of --mask or --outpaint where to paint in it.
 *
 * @throws As {@linkcode readEdit}.
 */
export async function readInit(
  flags: EditFlags,
  shape: Shape,
  progress: Pick<Progress, "say">,
  read: (path: string) => Promise<Uint8Array<ArrayBuffer>> = readFile,
): Promise<Init> {
  checkFlags(flags);
  const open = opening(progress, read);
  for (const name of ["init", "mask"] as const) refuseStdin(flags[name] ?? "", "an image");
  const { init: path } = flags, provenance: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(flags)) {
    if (name in editFlags && value !== undefined) provenance[name] = value as string | number;
  }
  const margins = flags.outpaint === undefined ? undefined : readMargins(flags.outpaint, shape);
  const picture = path === undefined
    ? undefined
    : await readCanvas(path, shape, margins, open, flags.mask === "alpha");
  return { picture, mask: await maskOf(flags, picture, shape, margins, open), provenance };
}

/** @throws {InputError} If flags contradict each other. */
function checkFlags(flags: EditFlags): void {
  const { init, mask, outpaint, strength, variation, resample, jump, region } = flags;
  const needsInit = (["strength", "mask", "outpaint", "variation"] as const)
    .find((name) => flags[name] !== undefined);
  if (needsInit && init === undefined) {
    throw new InputError(`--${needsInit} needs an image to start from: --init IMAGE`);
  }
  if (mask !== undefined && outpaint !== undefined) {
    throw new InputError("Give --mask or --outpaint, not both");
  }
  const paints = mask !== undefined || outpaint !== undefined;
  if (!paints && (resample ?? jump) !== undefined) {
    throw new InputError("--resample and --jump need --mask or --outpaint");
  }
  if (variation !== undefined && (paints || strength !== undefined)) {
    throw new InputError("--variation does not go together with --mask, --outpaint or --strength");
  }
  if ((region === undefined) !== (flags["other-class"] === undefined)) {
    throw new InputError(
      "Give --region and --other-class together: where to generate which class",
    );
  }
}

/** Pixels around an image. */
interface Margins {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

function readMargins(text: string, shape: Shape): Margins {
  const numbers = text.split(",").map((part) => /^\d+$/.test(part.trim()) ? Number(part) : NaN);
  const [left, top = left, right = left, bottom = top] = numbers;
  const { height, width } = pictureSize({ shape });
  if (
    ![1, 4].includes(numbers.length) || numbers.some(Number.isNaN) || !(left + top + right + bottom)
  ) {
    throw new InputError(
      `--outpaint is ${text}, but must be pixels as 4, or LEFT,TOP,RIGHT,BOTTOM as 0,0,8,0`,
    );
  }
  if (left + right >= width || top + bottom >= height) {
    throw new InputError(
      `--outpaint ${text} leaves nothing of the image: the model's images are ${width}x${height}`,
    );
  }
  return { left, top, right, bottom };
}

/** An image, and its size before resizing. */
interface Canvas extends Samples {
  readonly original: { readonly width: number; readonly height: number };
  /** 1 where it is transparent, in the size of the image. */
  readonly transparent: Float32Array | undefined;
}

/** How images are opened, and what is said of them. */
interface Opening {
  readonly progress: Pick<Progress, "say">;
  picture(path: string): Promise<Raster>;
}

const opening = (
  progress: Opening["progress"],
  read: (path: string) => Promise<Uint8Array<ArrayBuffer>>,
): Opening => ({
  progress,
  picture: async (path) => decodeImage(await read(path), path),
});

/** Reads an image as `train` does, and places it inside its margins. */
async function readCanvas(
  path: string,
  shape: Shape,
  margins: Margins | undefined,
  { picture: open, progress }: Opening,
  wantsAlpha: boolean,
): Promise<Canvas> {
  const { height, width, channels } = pictureSize({ shape });
  if (channels !== 1 && channels !== 3) {
    throw new InputError(`Cannot use ${path}: the model's images have ${channels} channels`);
  }
  const picture = await open(path);
  const { left, top, right, bottom } = margins ?? { left: 0, top: 0, right: 0, bottom: 0 };
  const inner = { width: width - left - right, height: height - top - bottom };
  const format = { ...inner, channels, background: [255, 255, 255] } as const;
  if (picture.width !== inner.width || picture.height !== inner.height) {
    progress.say(
      `${path} is resized from ${picture.width}x${picture.height} to ${inner.width}x${inner.height}`,
    );
  }
  const part = new Float32Array(inner.width * inner.height * channels);
  const corner = { left: 0, top: 0, isFlipped: false };
  writeImage(fit(picture, format, "center"), format, corner, part, 0);
  const data = place(part, inner, channels, { left, top }, { width, height });
  let transparent: Float32Array | undefined;
  if (wantsAlpha) {
    if (picture.channels % 2) {
      throw new InputError(`--mask alpha: ${path} has no transparency; give an image as the mask`);
    }
    const { channels: n, data } = picture;
    const alpha = Uint8Array.from({ length: data.length / n }, (_, i) => 255 - data[i * n + n - 1]);
    const grey = { width: picture.width, height: picture.height, channels: 1, data: alpha };
    transparent = toMask(fit(grey, { ...format, channels: 1 }, "center").data);
  }
  return {
    ...{ count: 1, shape, data, transparent },
    original: { width: picture.width, height: picture.height },
  };
}

/** Places an image in a larger one that is grey elsewhere. */
function place(
  part: Float32Array,
  inner: { readonly width: number; readonly height: number },
  channels: number,
  { left, top }: { readonly left: number; readonly top: number },
  { width, height }: { readonly width: number; readonly height: number },
): Float32Array<ArrayBuffer> {
  const data = new Float32Array(width * height * channels), row = inner.width * channels;
  for (let y = 0; y < inner.height; y++) {
    data.set(part.subarray(y * row, (y + 1) * row), ((y + top) * width + left) * channels);
  }
  return data;
}

const toMask = (bytes: Uint8Array) => Float32Array.from(bytes, (v) => v >= 128 ? 1 : 0);

/** A mask of the model's size: 1 where an image is white. */
async function readMask(
  path: string,
  shape: Shape,
  { picture: open, progress }: Opening,
  beside?: Canvas,
) {
  const { height, width } = pictureSize({ shape });
  const picture = await open(path);
  const size = `${picture.width}x${picture.height}`;
  if (beside) {
    const { width: w, height: h } = beside.original;
    if (picture.width !== w || picture.height !== h) {
      throw new InputError(`The mask ${path} is ${size}, but --init is ${w}x${h}`);
    }
  } else if (picture.width !== width || picture.height !== height) {
    progress.say(`${path} is resized from ${size} to ${width}x${height}`);
  }
  const format = { height, width, channels: 1, background: [0, 0, 0] } as const;
  return { values: toMask(fit(picture, format, "center").data) };
}

/** 1 where pixels are painted, `[height, width]`. */
async function maskOf(
  flags: EditFlags,
  picture: Canvas | undefined,
  shape: Shape,
  margins: Margins | undefined,
  open: Opening,
): Promise<Float32Array | undefined> {
  if (!picture) return undefined;
  const { height, width } = pictureSize({ shape });
  if (margins) {
    const { left, top, right, bottom } = margins;
    return Float32Array.from({ length: height * width }, (_, i) => {
      const x = i % width, y = Math.floor(i / width);
      return Number(x < left || x >= width - right || y < top || y >= height - bottom);
    });
  }
  if (flags.mask === undefined) return undefined;
  const mask = picture.transparent ?? (await readMask(flags.mask, shape, open, picture)).values;
  if (mask.some((v) => v)) return mask;
  throw new InputError(
    flags.mask === "alpha"
      ? `--mask alpha: no part of ${flags.init} is transparent, so there is nothing to paint`
      : `The mask ${flags.mask} is black everywhere, so there is nothing to paint: make it white where to paint`,
  );
}
