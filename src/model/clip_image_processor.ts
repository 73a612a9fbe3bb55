/**
 * How pictures are prepared for CLIP: the settings of transformers' `CLIPImageProcessor`.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";

const side = z.int().positive().max(4096), always = z.literal(true).default(true);
const color = z.array(z.number()).length(3);

/** Numbers alone are of early versions. */
const schema = z.object({
  size: z.union([side, z.object({ shortest_edge: side }).transform((size) => size.shortest_edge)])
    .default(224),
  crop_size: z.union([
    side,
    z.object({ height: side, width: side }).refine((crop) => crop.height === crop.width, {
      message: "is no square",
    }).transform((crop) => crop.height),
  ]).default(224),
  // Pillow's number of bicubic interpolation.
  resample: z.literal(3).default(3),
  rescale_factor: z.literal(1 / 255).default(1 / 255),
  image_mean: color.default([0.48145466, 0.4578275, 0.40821073]),
  image_std: color.refine((std) => std.every((x) => x > 0), { message: "must be positive" })
    .default([0.26862954, 0.26130258, 0.27577711]),
  ...{ do_resize: always, do_center_crop: always, do_rescale: always, do_normalize: always },
}).refine((config) => config.crop_size <= config.size, {
  ...{ path: ["crop_size"], message: "is larger than size" },
});

/** How pictures become squares that CLIP sees. */
export interface ClipImageProcessor {
  /** The shorter side after resizing. */
  readonly size: number;
  /** The side of the square in the middle that is cut out. */
  readonly crop: number;
  /** Means of red, green and blue, in [0, 1]. */
  readonly mean: readonly number[];
  /** Their deviations. */
  readonly std: readonly number[];
}

/**
 * The settings of a `preprocessor_config.json`.
 *
 * @throws {InputError} If a field is out of range, or asks for what is not done here.
 */
export function parseClipImageProcessor(
  fields: Readonly<Record<string, unknown>> = {},
): ClipImageProcessor {
  const config = parseWith(schema, givenFields(fields), "configuration of a CLIPImageProcessor");
  const { size, crop_size: crop, image_mean: mean, image_std: std } = config;
  return { size, crop, mean, std };
}
