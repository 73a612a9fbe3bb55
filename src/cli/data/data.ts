/**
 * Opening data sets: detects what a path holds, and reads it.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";
import type { Dataset } from "../../data/dataset.ts";
import { readImageHeader } from "../../data/datasets/image.ts";
import { pictureDataset, type Pictures } from "../../data/pictures.ts";
import type { Raster } from "../../data/raster.ts";
import { type Fingerprint, takeFingerprint } from "./fingerprint.ts";
import { type ImageOptions, type Look, preparationOf } from "../../data/image_options.ts";
import { parseMaxBad } from "../commands/image_options.ts";
import { kindOf, refuseStdin } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { knownData } from "./builtin_datasets.ts";
import { withCaptions } from "./captions.ts";
import { decodeImage } from "./decode.ts";
import { decodedDataset, defaultWorkers } from "./decode_pool.ts";
import { type ImageFiles, ImageReader, nameOf, share } from "./image_files.ts";
import { openPath } from "./open_path.ts";

/** Files and folders that are named at the most where some are left out. */
const SHOWN = 8;

/** How a data set is read. */
export interface ReadOptions {
  /** Whether to cache decoded images. */
  readonly cache?: boolean;
  /** How many images may be unreadable. @default {"1%"} */
  readonly maxBad?: string;
  /** Number of decoding threads. */
  readonly workers?: number;
}

/**
 * Opens a data set by name, or a file or folder. Names take precedence: a folder called mnist is
 * `./mnist`.
 *
 * @throws {InputError} If there is none, or it cannot be read.
 */
export async function openDataset(
  place: string,
  images: ImageOptions,
  progress: Progress,
  options: ReadOptions = {},
): Promise<Dataset> {
  const found = await find(place, images, progress, options);
  return await prepare(found, place, images, progress, options);
}

/**
 * Opens a data set, and takes its fingerprint.
 *
 * @throws {InputError} If there is none, or it cannot be read.
 */
export async function openTrainingData(
  place: string,
  images: ImageOptions,
  progress: Progress,
  options: ReadOptions = {},
): Promise<{ readonly data: Dataset; readonly fingerprint: Fingerprint }> {
  const found = await find(place, images, progress, options);
  const data = await prepare(found, place, images, progress, options);
  progress.update(`looking at the pictures of ${place}`);
  return { data, fingerprint: await takeFingerprint(found) };
}

/** The images of a data set known by name, or at a path. */
async function find(
  place: string,
  { classes, captions }: ImageOptions,
  progress: Progress,
  { maxBad }: ReadOptions,
): Promise<Pictures | ImageFiles> {
  // Before anything is downloaded.
  if (maxBad !== undefined) parseMaxBad(maxBad, 0);
  refuseStdin(place, "a data set");
  const known = Object.hasOwn(knownData, place) ? await knownData[place](progress) : place;
  const found = typeof known === "string" ? await openPath(known, classes, progress) : known;
  return captions ? await withCaptions(found) : found;
}

/** Pictures as a data set. */
async function prepare(
  found: Pictures | ImageFiles,
  place: string,
  images: ImageOptions,
  progress: Progress,
  { cache = false, maxBad = "1%", workers = defaultWorkers() }: ReadOptions,
): Promise<Dataset> {
  const look = "picture" in found
    ? { ...await found.picture(0), isOneSize: true }
    : await lookAt(found);
  const preparation = preparationOf(place, images, look), name = place;
  await sayIfDark(found, progress);
  const options = {
    ...{ workers, cacheBytes: cache ? cacheLimit() : 0 },
    ...{ maxBad: parseMaxBad(maxBad, found.count), maxBadText: maxBad },
    onBad: (message: string) => progress.say(message),
  };
  if (!("picture" in found)) {
    if (found.others) {
      const what = found.others === 1 ? "1 file that is" : `${found.others} files that are`;
      progress.say(`passed over ${what} not named as images are`);
    }
    sayLost(found.lost, progress);
    return decodedDataset(found, preparation, options);
  }
  const { array, picture: _, ...set } = found;
  // What need not be resized is faster read here than sent from elsewhere.
  const isFit = look.width === preparation.width && look.height === preparation.height;
  if (isFit || !array) return pictureDataset({ ...found, name }, preparation);
  const shared = {
    kind: "array",
    path: name,
    layout: array.layout,
    bytes: share(array.bytes),
  } as const;
  return decodedDataset(
    { ...set, name, files: [], place: shared, others: 0, lost: [] },
    preparation,
    options,
  );
}

/** Names what is left out, without what names from elsewhere could do to a terminal. */
function sayLost(lost: ImageFiles["lost"], progress: Progress): void {
  for (const { name, why } of lost.slice(0, SHOWN)) {
    progress.say(`left out   ${name}: ${why}`.replace(/\p{Cc}+/gu, " "));
  }
  if (lost.length > SHOWN) progress.say(`left out   ${lost.length - SHOWN} more`);
}

/** Half of the free memory, or 1 GiB if Deno may not query it. */
function cacheLimit(): number {
  try {
    return Math.min(2 ** 36, Math.floor(Deno.systemMemoryInfo().available / 2));
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return 2 ** 30;
    throw error;
  }
}

/**
 * The test split of a data set: the one that a built-in set has, or for folders in the format of MNIST
 * the files t10k-*; `undefined` if there is none.
 */
export async function heldBack(place: string): Promise<string | undefined> {
  if (Object.hasOwn(knownData, `${place}-test`)) return `${place}-test`;
  if (Object.hasOwn(knownData, place) || await kindOf(place) !== "folder") return undefined;
  for await (const { name } of Deno.readDir(place)) {
    if (/^t10k-images[-.]idx3-ubyte(\.gz)?$/.test(name)) return join(place, name);
  }
  return undefined;
}

/** How many images are inspected to find size and channels of a data set. */
const LOOKED_AT = 64;

/** The indices of those. */
const looksAt = (count: number): number[] =>
  Array.from(
    { length: Math.min(count, LOOKED_AT) },
    (_, i) => Math.floor(i * Math.max(1, count / LOOKED_AT)),
  );

/** Size and channels of a data set, from evenly chosen images. Damaged ones are skipped. */
async function lookAt(files: ImageFiles): Promise<Look> {
  using reader = new ImageReader(files.place);
  let first: Look | undefined, isGrey = true, isOneSize = true, size = "", trouble: unknown;
  for (const index of looksAt(files.count)) {
    const file = files.files[index];
    try {
      const bytes = await reader.read(file), header = readImageHeader(bytes, nameOf(file));
      // The first one is decoded: it may be turned, and a palette may be grey.
      first ??= { ...await decodeImage(bytes, nameOf(file)), isOneSize };
      isGrey &&= header.isGrey;
      const text = [header.width, header.height].sort((a, b) => a - b).join("x");
      isOneSize &&= !size || size === text;
      size ||= text;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      trouble ??= error;
    }
  }
  if (!first) throw trouble;
  return { ...first, channels: isGrey ? 1 : 3, isOneSize };
}

/** Images without a brighter level, an eighth of white, are nearly black. */
const DARK = 31;

/** Warns of images that are nearly black, as label maps are. */
async function sayIfDark(found: Pictures | ImageFiles, progress: Progress): Promise<void> {
  using reader = "picture" in found ? undefined : new ImageReader(found.place);
  let most = 0;
  for (const index of looksAt(found.count)) {
    try {
      const picture = "picture" in found
        ? await found.picture(index)
        : await reader!.picture(index, found.files[index]);
      most = Math.max(most, brightest(picture));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
    }
    if (most > DARK) return;
  }
  const advice = most ? `; if they are masks, multiply them by ${Math.floor(255 / most)}` : "";
  progress.say(
    `notice      the images are nearly black: no level is above ${most} of 255${advice}`,
  );
}

/** The highest level of a picture, of white where it is transparent. */
function brightest({ channels, data }: Raster): number {
  let most = 0;
  for (let i = 0; i < data.length; i++) {
    const isAlpha = channels % 2 === 0 && i % channels === channels - 1;
    const level = !isAlpha ? data[i] : data[i] < 255 ? 255 : 0;
    if (level > most) most = level;
  }
  return most;
}
