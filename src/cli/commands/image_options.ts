/**
 * Flags about how `train` prepares images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Flag, Flags } from "../terminal/flags.ts";

/** Flags about images. */
export const imageFlags = {
  size: {
    kind: "text",
    value: "N",
    default: "that of the images, up to 256",
    help: "image size in pixels, 64 or 64x48 (width x height)",
  },
  channels: {
    kind: "integer",
    min: 1,
    max: 3,
    default: "that of the images",
    help: "1 for grey, 3 for color",
  },
  crop: {
    kind: "text",
    value: "WHERE",
    choices: ["center", "random"],
    default: "center",
    help: "center or random crop of images of other proportions",
  },
  flip: { kind: "switch", help: "random horizontal flips" },
  shift: {
    kind: "integer",
    min: 0,
    max: 64,
    default: 0,
    help: "random translation by up to N pixels",
  },
  background: {
    kind: "text",
    value: "COLOR",
    default: "#ffffff",
    help: "color behind transparent pixels",
  },
  classes: {
    kind: "text",
    value: "SOURCE",
    choices: ["none", "folders"],
    default: "none",
    help: "none, or folders: the top-level folder of an image is its class",
  },
  captions: {
    kind: "switch",
    help:
      "train on captions: the names of emoji, or for a folder of images its metadata.jsonl, or a text file beside each",
  },
  cache: { kind: "switch", help: "keep decoded images in memory, up to half of what is free" },
  "max-bad": {
    kind: "text",
    value: "N|N%",
    default: "1%",
    help: "unreadable images to tolerate, as a number or a percentage",
  },
} as const satisfies Record<string, Flag>;

/**
 * The fields that flags give.
 *
 * @throws {InputError} If one is not of its form.
 */
export function imageFields(flags: Flags<typeof imageFlags>): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const name of ["channels", "crop", "flip", "shift", "classes", "captions"] as const) {
    if (flags[name] !== undefined) fields[name] = flags[name];
  }
  if (flags.channels === 2) {
    throw new InputError("--channels must be 1 for grey or 3 for color, not 2");
  }
  if (flags.size !== undefined) fields.size = parseSize(flags.size);
  if (flags.background !== undefined) {
    const digits = flags.background.replace(/^#/, "").toLowerCase();
    const full = digits.length === 3 ? digits.replace(/./g, "$&$&") : digits;
    if (!/^[0-9a-f]{6}$/.test(full)) {
      throw new InputError(`--background must be a color like #ffffff, not ${flags.background}`);
    }
    fields.background = `#${full}`;
  }
  return fields;
}

/**
 * Height and width of a --size.
 *
 * @throws {InputError} If it is none.
 */
export function parseSize(text: string): [height: number, width: number] {
  const match = text.match(/^(\d{1,4})(?:x(\d{1,4}))?$/);
  const [width, height] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (!match || !width || !height || Math.max(width, height) > 4096) {
    throw new InputError(`--size must be like 64 or 64x48, sides from 1 to 4096, not ${text}`);
  }
  return [height, width];
}

/** Parses --max-bad for a number of images. */
export function parseMaxBad(text: string, count: number): number {
  const match = text.match(/^(\d+(?:\.\d+)?)(%?)$/), value = Number(match?.[1]);
  const isGood = match && (match[2] ? value <= 100 : Number.isInteger(value));
  if (!isGood) {
    throw new InputError(`--max-bad must be like 1% or 20, not ${text}`);
  }
  return match[2] ? Math.floor(value / 100 * count) : value;
}
