/**
 * Arrays of pictures of one size: how their bytes lie, and which of a file's arrays are pictures and
 * which are labels.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Pictures } from "../pictures.ts";
import type { Raster } from "../raster.ts";
import { type Bytes, inMemory } from "../../formats/bytes.ts";
import type { StoredArray } from "../../formats/npy.ts";
import { formatBytePair } from "../../units.ts";
import { byName, labelsAmong } from "./array_labels.ts";

/** How pictures of one size lie in an array of bytes. */
export interface ArrayLayout {
  /** Number of pictures. */
  readonly count: number;
  /** Rows of each. */
  readonly height: number;
  /** Columns of each. */
  readonly width: number;
  /** Numbers a pixel, as in a {@linkcode Raster}. */
  readonly channels: number;
  /** Axes from the slowest to the fastest. @default {"hwc"} */
  readonly order?: "hwc" | "chw" | "whc";
  /** Bytes before the first picture. @default {0} */
  readonly offset?: number;
  /** Bytes from one picture to the next. @default height · width · channels */
  readonly stride?: number;
}

/** Classes of pictures. */
export interface Labels {
  /** The class of each picture, from 0. */
  readonly labels?: ArrayLike<number>;
  /** What they are called. */
  readonly classes?: readonly string[];
}

/**
 * Pictures of one size in an array of bytes.
 *
 * @throws {InputError} If there are none, or fewer bytes than they need.
 *
 * @example
 * ```ts
 * import { arrayPictures } from "@x/ddpm/data";
 *
 * const layout = { count: 2, height: 1, width: 2, channels: 3, order: "chw" } as const;
 * const two = arrayPictures("two", layout, new Uint8Array(12));
 * console.log(await two.picture(1)); // { width: 2, height: 1, channels: 3, data: ... }
 * ```
 */
export function arrayPictures(
  name: string,
  layout: ArrayLayout,
  bytes: Uint8Array<ArrayBuffer> | Bytes,
  labels: Labels = {},
): Pictures {
  const { count, height, width, channels, order = "hwc", offset = 0 } = layout;
  const size = height * width * channels, stride = layout.stride ?? size;
  const source = bytes instanceof Uint8Array ? inMemory(bytes) : bytes;
  const bad = (why: string) => new InputError(`Cannot use ${name}: ${why}`);
  if (!size || !count) throw bad(`it has ${count} images of ${height}x${width}x${channels}`);
  if (channels > 4) throw bad(`its images have ${channels} channels, not 1 to 4`);
  const needed = offset + (count - 1) * stride + size;
  if (source.length < needed) {
    const [wanted, there] = formatBytePair(needed, source.length);
    throw bad(`${count} images need ${wanted}, but there are ${there}`);
  }
  if (labels.labels && labels.labels.length !== count) {
    throw bad(`${count} images have ${labels.labels.length} labels`);
  }
  return {
    ...{ name, count, ...labels },
    ...(bytes instanceof Uint8Array ? { array: { layout, bytes } } : {}),
    picture(index): Raster {
      const from = offset + index * stride, data = source.read(from, from + size);
      if (data.length < size) throw bad(`image ${index} is missing: the file became shorter`);
      return { width, height, channels, data: interleave(data, layout, order) };
    },
  };
}

/** Pixel by pixel, row by row. */
function interleave(
  data: Uint8Array<ArrayBuffer>,
  { height, width, channels }: ArrayLayout,
  order: "hwc" | "chw" | "whc",
): Uint8Array<ArrayBuffer> {
  if (order === "hwc" || (order === "chw" && channels === 1)) return data;
  const out = new Uint8Array(data.length);
  if (order === "chw") {
    for (let c = 0, from = 0; c < channels; c++) {
      for (let to = c; to < out.length; to += channels) out[to] = data[from++];
    }
    return out;
  }
  for (let x = 0, from = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      for (let c = 0, to = (y * width + x) * channels; c < channels; c++) out[to++] = data[from++];
    }
  }
  return out;
}

/** What arrays of pictures are called, the most common first. */
const PICTURES = ["images", "x_train", "train_images", "data", "x", "arr_0"];

/**
 * Pictures and labels among the arrays of a file: the array of rank 3 or 4, and the one of rank 1
 * with as many elements; among several those with such names. The other ones may hold anything.
 *
 * @throws {InputError} If there are no pictures, or several arrays could be them.
 */
export function picturesAmong(what: string, arrays: readonly StoredArray[]): Pictures {
  const bad = (why: string) => new InputError(`Cannot use ${what}: ${why}`);
  const pictures = pickPictures(arrays, bad), [count] = pictures.shape;
  return {
    ...arrayPictures(
      what,
      { ...layoutOf(pictures.shape, bad), offset: pictures.isBytes ? pictures.offset : 0 },
      pictures.isBytes ? wholeOf(pictures.bytes) : toBytes(pictures.values(), bad),
    ),
    ...labelsAmong(arrays.filter((array) => array !== pictures), count),
  };
}

function pickPictures(
  arrays: readonly StoredArray[],
  bad: (why: string) => InputError,
): StoredArray {
  const isUsable = ({ shape, problem, texts }: StoredArray) =>
    (shape.length === 3 || shape.length === 4) && !problem && !texts;
  const usable = arrays.filter(isUsable), broken = arrays.filter(({ problem }) => problem);
  const called = byName(broken, PICTURES.slice(0, 1));
  if (called) throw new InputError(called.problem!);
  const picked = usable.length > 1 ? byName(usable, PICTURES) : usable[0];
  if (picked) return picked;
  // Of an array alone, or of one that is called like pictures, the problem says more than a list.
  const trouble = byName(broken, PICTURES) ?? (arrays.length === 1 ? broken[0] : undefined);
  if (!usable.length && trouble) throw new InputError(trouble.problem!);
  const shapes = arrays.map(({ name, shape, problem }) =>
    `${name} ${shape.join("x") || (problem ? "that cannot be read" : "of one number")}`
  );
  const list = `${shapes.slice(0, 8).join(", ")}${shapes.length > 8 ? ", ..." : ""}`;
  throw bad(
    usable.length
      ? `several arrays could be its images (${list}); call one of them images`
      : `it has no array of images, count x height x width or count x height x width x channels ` +
        `(${list || "it is empty"})`,
  );
}

/** What is in memory as it is, of files on a disk their reader. */
const wholeOf = (bytes: Bytes) => bytes.isInMemory ? bytes.read(0, bytes.length) : bytes;

function layoutOf(shape: readonly number[], bad: (why: string) => InputError): ArrayLayout {
  const [count, a, b, c] = shape;
  // Pictures of one to four columns are hardly meant.
  if (shape.length === 3 && [1, 3, 4].includes(b) && a > 4) {
    throw bad(
      `an array of ${shape.join("x")} is a single image with ${b} channels; a set is an array of ` +
        `count x height x width x channels, as numpy.stack makes it of images`,
    );
  }
  if (shape.length === 3) return { count, height: a, width: b, channels: 1 };
  if (c >= 1 && c <= 4) return { count, height: a, width: b, channels: c };
  if (a >= 1 && a <= 4) return { count, channels: a, height: b, width: c, order: "chw" };
  throw bad(
    `its images are of shape ${shape.join("x")}; they should have 1 to 4 channels, last or first`,
  );
}

/** Floats as bytes: from [-1, 1] if some are negative, else from [0, 1], else from [0, 255]. */
function toBytes(
  values: Float32Array | Float64Array,
  bad: (why: string) => InputError,
): Uint8Array<ArrayBuffer> {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) throw bad(`it has the number ${value}`);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  // Images that a model made may be beyond their range a little.
  const slack = 0.01;
  const [from, to] = low < 0 ? [-1, 1] : high <= 1 + slack ? [0, 1] : [0, 255];
  if (low < from - slack || high > to + slack) {
    throw bad(`its numbers are from ${low} to ${high}, not in [-1, 1], [0, 1] or [0, 255]`);
  }
  const scale = 255 / (to - from);
  const bytes = new Uint8ClampedArray(values.length);
  for (let i = 0; i < values.length; i++) bytes[i] = Math.round((values[i] - from) * scale);
  return new Uint8Array(bytes.buffer);
}
