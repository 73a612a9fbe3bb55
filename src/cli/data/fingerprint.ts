/**
 * The fingerprint of a set of pictures, by which a training that goes on sees whether they are those
 * that it learnt from.
 *
 * It covers, of image files, all names and sizes, and the contents of some, evenly chosen: up to 1024
 * of them, or 256 MB. Of pictures in memory it covers all bytes, and of other arrays 1024 pictures. So
 * it costs less than a second for 60,000 files; what it can miss is a file of a large set in whose
 * place came one of the same name and size.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { join } from "@std/path";
import { z } from "zod";
import { InputError } from "../../errors.ts";
import type { Pictures } from "../../data/pictures.ts";
import { type ImageFile, type ImageFiles, ImageReader, nameOf } from "./image_files.ts";

/** What a set was like. */
export interface Fingerprint {
  /** Number of pictures. */
  readonly count: number;
  /** What the classes are called, if that is known. */
  readonly classes: readonly string[] | null;
  /** A hash of all labels, if there are any. */
  readonly labels: string | null;
  /** A hash of all captions, if there are any. */
  readonly captions: string | null;
  /** A hash of the pictures. */
  readonly pictures: string;
}

const schema: z.ZodType<Fingerprint, unknown> = z.object({
  count: z.int(),
  classes: z.array(z.string()).nullable(),
  labels: z.string().nullable(),
  captions: z.string().nullable().default(null),
  pictures: z.string(),
});

/** Files or pictures whose contents count, at most, and their bytes. */
const LOOKED_INTO = 1024, MAX_BYTES = 256e6;

/** Takes the fingerprint of a set. */
export async function takeFingerprint(found: Pictures | ImageFiles): Promise<Fingerprint> {
  const { count, classes = null, labels, captions } = found, hash = createHash("sha256");
  await ("files" in found ? addFiles(hash, found) : addPictures(hash, found));
  const numbers = labels && Int32Array.from(labels);
  const digest = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
  return {
    ...{ count, classes },
    labels: numbers ? digest(new Uint8Array(numbers.buffer)) : null,
    captions: captions ? digest(JSON.stringify(captions)) : null,
    pictures: hash.digest("hex"),
  };
}

/** Names and sizes of all files, and what is in some of them. */
async function addFiles(hash: Hash, { files, place }: ImageFiles): Promise<void> {
  let bytes = 0;
  for (const file of files) {
    const size = sizeOf(place.path, file);
    hash.update(`${nameOf(file).replaceAll("\\", "/")}\0${size}\n`);
    bytes += size;
  }
  using reader = new ImageReader(place);
  const most = Math.min(LOOKED_INTO, Math.ceil(MAX_BYTES * files.length / Math.max(1, bytes)));
  for (const index of evenly(files.length, most)) {
    await passOver(async () => hash.update(await reader.read(files[index])));
  }
}

/** What cannot be read is named when it is its turn. */
async function passOver(read: () => Promise<unknown>): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
  }
}

/** Bytes of a file; 0 if it is gone. */
function sizeOf(folder: string, file: ImageFile): number {
  if (typeof file === "object") return file.size;
  try {
    return Deno.statSync(join(folder, file ?? "")).size;
  } catch {
    return 0;
  }
}

async function addPictures(hash: Hash, pictures: Pictures): Promise<void> {
  if (pictures.array) return void hash.update(pictures.array.bytes);
  for (const index of evenly(pictures.count, LOOKED_INTO)) {
    await passOver(async () => {
      const { width, height, channels, data } = await pictures.picture(index);
      hash.update(`${width}x${height}x${channels}\n`).update(data);
    });
  }
}

/** Some of so many numbers, at equal distances. */
function evenly(count: number, most: number): number[] {
  const length = Math.min(count, most);
  return Array.from({ length }, (_, i) => Math.floor(i * count / length));
}

/** Reads what {@linkcode formatFingerprint} wrote; `undefined` if it is something else, or nothing. */
export function parseFingerprint(text: string | undefined): Fingerprint | undefined {
  try {
    return schema.safeParse(JSON.parse(text ?? "null")).data;
  } catch {
    return undefined;
  }
}

/** A fingerprint as text. */
export const formatFingerprint = (fingerprint: Fingerprint): string => JSON.stringify(fingerprint);

/**
 * Compares the pictures with those that a training was saved with.
 *
 * @param name What the set is called.
 * @param learnsClasses Whether the network learns the labels.
 * @returns What is to be told, if they differ.
 * @throws {InputError} If labels mean something else now.
 */
export function comparePictures(
  before: Fingerprint,
  now: Fingerprint,
  name: string,
  learnsClasses: boolean,
): string | undefined {
  const isSame = before.pictures === now.pictures;
  if (learnsClasses) {
    const [was, is] = [before.classes ?? [], now.classes ?? []];
    const differs = was.findIndex((name, i) => i < is.length && is[i] !== name);
    if (differs >= 0) {
      throw new InputError(
        `Cannot resume: class ${differs} of ${name} is ${is[differs]}, and was ${
          was[differs]
        } when ` +
          `the training was saved; name the classes as they were (${
            shorten(was)
          }), or start a new ` +
          "training with another --out",
      );
    }
    if (isSame && before.labels !== now.labels) {
      throw new InputError(
        `Cannot resume: the pictures of ${name} are those that the training was saved with, but ` +
          "they have other labels; give the labels as they were, or start a new training with " +
          "another --out",
      );
    }
  }
  if (isSame) {
    if (before.captions === null || before.captions === now.captions) return undefined;
    return `note: the captions of ${name} are not those that the training was saved with; the ` +
      "training continues with them";
  }
  const what = before.count === now.count
    ? "names, sizes or contents differ"
    : `there were ${before.count}, there are ${now.count}`;
  return `note: the pictures of ${name} are not those that the training was saved with (${what}); ` +
    "the training continues with them";
}

const shorten = (names: readonly string[]) =>
  names.slice(0, 10).join(", ") + (names.length > 10 ? ", ..." : "");
