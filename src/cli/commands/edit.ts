/**
 * The flags of `sample` that edit a picture: what they make of it for the sampler.
 *
 * @module
 */

import { fit, writeImage } from "../../data/raster.ts";
import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import type { Shape } from "../../shape.ts";
import { inpaint } from "../../sample/editing/inpaint.ts";
import { regions } from "../../sample/editing/regions.ts";
import {
  pictureSize,
  type SampleOptions,
  type SamplerOptions,
  type Samples,
} from "../../sample/options.ts";
import { type MethodName, methods } from "../../sample/solvers/mod.ts";
import { decodeImage } from "../data/decode.ts";
import { readFile } from "../terminal/files.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import type { Progress } from "../terminal/progress.ts";

/** Steps with a mask, where nobody says how many, and how they are walked. */
const MASK_STEPS = 50, MASK_JUMP = 5, MASK_TIMES = 5;

/** What `sample` understands of editing. */
export const editFlags = {
  init: { kind: "text", value: "PICTURE", help: "begin with a picture and noise on it" },
  strength: {
    kind: "number",
    min: 0,
    max: 1,
    help: "how much of --init changes: 0 nothing, 1 all of it; default 0.6, with a mask 1",
  },
  mask: {
    kind: "text",
    value: "PICTURE",
    help: "paint --init anew where this is white; or alpha: where --init is transparent",
  },
  outpaint: {
    kind: "text",
    value: "N",
    help: "make --init smaller, and paint N pixels around it, or LEFT,TOP,RIGHT,BOTTOM",
  },
  resample: {
    kind: "integer",
    min: 1,
    max: 1000,
    help: `with a mask, how often steps are gone back and taken again; default ${MASK_TIMES}`,
  },
  jump: {
    kind: "integer",
    min: 1,
    max: 10_000,
    help: `with a mask, how many steps at a time; default ${MASK_JUMP}`,
  },
  variation: {
    kind: "number",
    min: 0,
    max: 1,
    help: "pictures like --init, whose noise is changed so much, 0 to 1",
  },
  region: {
    kind: "text",
    value: "PICTURE",
    help: "where this is white, --other-class is painted",
  },
  "other-class": { kind: "text", value: "CLASS", help: "the class in --region" },
} as const satisfies Record<string, Flag>;

/** The flags that were given. */
export type EditFlags = Flags<typeof editFlags>;

/** An edit, as a sampler takes it. */
export interface Edit {
  readonly wrap: readonly DenoiserWrapper[];
  readonly sampler: Pick<SamplerOptions, "resample" | "steps" | "method">;
  readonly sample: Pick<SampleOptions, "init" | "strength" | "conditions">;
  /** The picture to vary, and how much. */
  readonly variation?: { readonly of: Samples; readonly amount: number };
  /** What goes into files. */
  readonly provenance: Readonly<Record<string, string | number>>;
  /** The images with what was to be kept as it was. */
  finish(images: Samples): Samples;
}

/**
 * What the flags ask for.
 *
 * @param shape Of the model's pictures.
 * @param method What --sampler says.
 * @throws {InputError} If they contradict each other, or a picture cannot be used.
 */
export async function readEdit(
  flags: EditFlags,
  shape: Shape,
  method: MethodName | undefined,
  progress: Progress,
): Promise<Edit> {
  checkFlags(flags);
  const { init: path, region } = flags, provenance: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(flags)) {
    if (name in editFlags && value !== undefined) provenance[name] = value as string | number;
  }
  const margins = flags.outpaint === undefined ? undefined : readMargins(flags.outpaint, shape);
  const picture = path === undefined
    ? undefined
    : await readCanvas(path, shape, margins, progress, flags.mask === "alpha");
  const mask = await maskOf(flags, picture, shape, margins, progress);
  const painted = region === undefined ? undefined : await readMask(region, shape, progress);
  if (painted && !painted.values.some((v) => v)) {
    throw new InputError(`--region ${region} is black everywhere: --other-class has no place`);
  }
  const chosen = method ?? (mask ? "ddpm" : undefined);
  const isFresh = chosen === undefined || methods[chosen].isStochastic;
  return {
    wrap: [
      ...(painted ? [regions] : []),
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
        ? { init: picture, strength: flags.strength ?? 0.6 }
        : {}),
      conditions: {
        ...(mask && picture ? { mask, known: picture.data } : {}),
        ...(painted ? { region: painted.values } : {}),
      },
    },
    ...(picture && flags.variation !== undefined
      ? { variation: { of: picture, amount: flags.variation } }
      : {}),
    provenance,
    finish: (images) => mask && picture ? keep(images, picture, mask) : images,
  };
}

/** @throws {InputError} If they contradict each other. */
function checkFlags(flags: EditFlags): void {
  const { init, mask, outpaint, strength, variation, resample, jump, region } = flags;
  const needsInit = (["strength", "mask", "outpaint", "variation"] as const)
    .find((name) => flags[name] !== undefined);
  if (needsInit && init === undefined) {
    throw new InputError(`--${needsInit} needs a picture to begin with: --init PICTURE`);
  }
  if (mask !== undefined && outpaint !== undefined) {
    throw new InputError("Give --mask or --outpaint, not both: each says what is painted");
  }
  const paints = mask !== undefined || outpaint !== undefined;
  if (!paints && (resample ?? jump) !== undefined) {
    throw new InputError("--resample and --jump are for --mask and --outpaint");
  }
  if (variation !== undefined && (paints || strength !== undefined)) {
    throw new InputError("--variation goes without --mask, --outpaint and --strength");
  }
  if ((region === undefined) !== (flags["other-class"] === undefined)) {
    throw new InputError(
      "--region and --other-class go together: where, and what is painted there",
    );
  }
}

/** Pixels around a picture. */
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
      `--outpaint ${text} leaves nothing of the picture: the model's images are ${width}x${height}`,
    );
  }
  return { left, top, right, bottom };
}

/** A picture with what it was before it was brought to size. */
interface Canvas extends Samples {
  readonly original: { readonly width: number; readonly height: number };
  /** 1 where it is transparent, in the size of the image. */
  readonly transparent: Float32Array | undefined;
}

/** Reads a picture as train reads those it learns from, and puts it in the middle of its margins. */
async function readCanvas(
  path: string,
  shape: Shape,
  margins: Margins | undefined,
  progress: Progress,
  wantsAlpha: boolean,
): Promise<Canvas> {
  const { height, width, channels } = pictureSize({ shape });
  if (channels !== 1 && channels !== 3) {
    throw new InputError(`Cannot use ${path}: the model's images have ${channels} channels`);
  }
  const picture = await decodeImage(await readFile(path), path);
  const { left, top, right, bottom } = margins ?? { left: 0, top: 0, right: 0, bottom: 0 };
  const inner = { width: width - left - right, height: height - top - bottom };
  const format = { ...inner, channels, background: [255, 255, 255] } as const;
  if (picture.width !== inner.width || picture.height !== inner.height) {
    progress.say(
      `${path} is ${picture.width}x${picture.height}, and is brought to ${inner.width}x${inner.height}`,
    );
  }
  const part = new Float32Array(inner.width * inner.height * channels);
  const corner = { left: 0, top: 0, isFlipped: false };
  writeImage(fit(picture, format, "center"), format, corner, part, 0);
  const data = place(part, inner, channels, { left, top }, { width, height });
  let transparent: Float32Array | undefined;
  if (wantsAlpha) {
    if (picture.channels % 2) {
      throw new InputError(`--mask alpha: ${path} has no transparency; give a mask as a picture`);
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

/** A picture within a larger one, grey around it. */
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

/** A mask of the model's size: 1 where a picture is white. */
async function readMask(path: string, shape: Shape, progress: Progress, beside?: Canvas) {
  const { height, width } = pictureSize({ shape });
  const picture = await decodeImage(await readFile(path), path);
  const size = `${picture.width}x${picture.height}`;
  if (beside) {
    const { width: w, height: h } = beside.original;
    if (picture.width !== w || picture.height !== h) {
      throw new InputError(`The mask ${path} is ${size}, but the picture is ${w}x${h}`);
    }
  } else if (picture.width !== width || picture.height !== height) {
    progress.say(`${path} is ${size}, and is brought to ${width}x${height}`);
  }
  const format = { height, width, channels: 1, background: [0, 0, 0] } as const;
  return { values: toMask(fit(picture, format, "center").data) };
}

/** What is painted, `[height, width]`. */
async function maskOf(
  flags: EditFlags,
  picture: Canvas | undefined,
  shape: Shape,
  margins: Margins | undefined,
  progress: Progress,
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
  const mask = picture.transparent ?? (await readMask(flags.mask, shape, progress, picture)).values;
  if (mask.some((v) => v)) return mask;
  throw new InputError(
    flags.mask === "alpha"
      ? `--mask alpha: nothing of ${flags.init} is transparent, so there is nothing to paint`
      : `The mask ${flags.mask} is black everywhere: there is nothing to paint; white is painted`,
  );
}

/** The images with the picture where the mask is 0. */
function keep(images: Samples, picture: Samples, mask: Float32Array): Samples {
  const channels = images.shape[images.shape.length - 1], each = picture.data.length;
  const data = images.data.map((value, i) =>
    mask[Math.floor(i % each / channels)] ? value : picture.data[i % each]
  );
  return { ...images, data };
}
