/**
 * How a training prepares pictures: the section `images` of its configuration, and defaults taken from
 * the pictures themselves.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import type { Preparation } from "./pictures.ts";
import type { Color, Raster } from "./raster.ts";

const side = z.int().min(1).max(4096);
/** Schema of the section in files. */
export const imagesSchema = z.strictObject({
  size: z.union([side.transform((n) => [n, n]), z.tuple([side, side])]).nullable().default(null),
  channels: z.union([z.literal(1), z.literal(3)]).nullable().default(null),
  crop: z.enum(["center", "random"]).default("center"),
  flip: z.boolean().default(false),
  shift: z.int().min(0).max(64).default(0),
  background: z.string().regex(/^#[0-9a-f]{6}$/, "should be like #ffffff").default("#ffffff"),
  classes: z.enum(["none", "folders"]).default("none"),
  captions: z.boolean().default(false),
});

/** Section `images` of a configuration; `size` is one side, or height and width. */
export type ImageOptions = z.infer<typeof imagesSchema>;

/** @throws {InputError} If a field is unknown or out of range. */
export const parseImages = (json: unknown): ImageOptions =>
  parseWith(imagesSchema, json, "image options");

/** Images with longer sides need an explicit `--size`. */
const DEFAULT_MAX_SIDE = 256;

/** Size and channels of the images of a set. */
export type Look = Pick<Raster, "width" | "height" | "channels"> & {
  /** Whether all inspected images have one size. */
  readonly isOneSize: boolean;
};

/**
 * How images are prepared, by the options, or else by what they are.
 *
 * @throws {InputError} If they need a --size and none is given.
 */
export function preparationOf(name: string, options: ImageOptions, look: Look): Preparation {
  const { crop, flip, shift, background } = options;
  if (
    options.size === null &&
    (!look.isOneSize || Math.max(look.width, look.height) > DEFAULT_MAX_SIDE)
  ) {
    const what = look.isOneSize ? `are ${look.width}x${look.height}` : "are of different sizes";
    throw new InputError(
      `Cannot use ${name}: its images ${what}; give --size, 64 for instance`,
    );
  }
  const [height, width] = options.size ?? [look.height, look.width];
  const color = [1, 3, 5].map((i) => parseInt(background.slice(i, i + 2), 16));
  return {
    ...{ height, width, channels: options.channels ?? (look.channels < 3 ? 1 : 3) },
    ...{ crop, flip, shift, background: color as unknown as Color },
  };
}
