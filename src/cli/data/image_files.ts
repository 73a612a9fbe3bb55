/**
 * Image files in a folder or an archive.
 *
 * @module
 */

import { join, relative, SEPARATOR } from "@std/path";
import { InputError } from "../../errors.ts";
import { type ArrayLayout, arrayPictures } from "../../data/datasets/array.ts";
import type { Bytes } from "../../formats/bytes.ts";
import { classesOfFolders, numberClasses } from "../../data/datasets/folders.ts";
import { IMAGE_NAME } from "../../data/datasets/image.ts";
import {
  type ArchiveEntry,
  type Lost,
  MAX_LINKED_FOLDERS,
  type Unpacked,
} from "../../formats/archive.ts";
import { extract } from "../../formats/zip.ts";
import type { DatasetInfo } from "../../data/dataset.ts";
import type { Pictures } from "../../data/pictures.ts";
import type { Raster } from "../../data/raster.ts";
import { decodeImage } from "./decode.ts";
import { explain, FileBytes, isMangled, NOT_UTF8 } from "../terminal/files.ts";

/** A set of image files, not yet decoded. */
export interface ImageFiles extends DatasetInfo {
  /** Paths within the folder, or places in the archive, in the order of their names. */
  readonly files: readonly ImageFile[];
  readonly place: Place;
  /** Number of files without the extension of an image. */
  readonly others: number;
  /** Files and folders that should be of the set, but cannot be had. */
  readonly lost: readonly Lost[];
}

/** A path, an entry of an archive, or nothing where the index is enough. */
export type ImageFile = string | ArchiveEntry | undefined;

/** Where images are; can be posted to a worker. */
export type Place =
  | { readonly kind: "array"; readonly path: string; readonly layout: ArrayLayout } & Shared
  | { readonly kind: "folder"; readonly path: string }
  | { readonly kind: "archive"; readonly path: string }
  | { readonly kind: "memory"; readonly path: string } & Shared;

/** Memory shared by all threads. */
interface Shared {
  readonly bytes: SharedArrayBuffer;
}

/** Larger image files are not read. */
const MAX_FILE = 2 ** 30;

/** Reads images of a set, one at a time. Disposing of it closes open files. */
export class ImageReader implements Disposable {
  readonly #place: Place;
  readonly #archive: Bytes | undefined;
  readonly #array: Pictures | undefined;

  /** @throws {InputError} If an archive cannot be read. */
  constructor(place: Place) {
    this.#place = place;
    if (place.kind === "archive") this.#archive = new FileBytes(place.path);
    if (place.kind === "memory") this.#archive = sharedBytes(place.bytes);
    if (place.kind === "array") {
      this.#array = arrayPictures(place.path, place.layout, sharedBytes(place.bytes));
    }
  }

  /** @throws {InputError} If it is damaged, or cannot be read. */
  async picture(index: number, file: ImageFile): Promise<Raster> {
    return await this.#array?.picture(index) ??
      await decodeImage(await this.read(file), nameOf(file));
  }

  /** @throws {InputError} If the file cannot be read. */
  async read(file: ImageFile): Promise<Uint8Array<ArrayBuffer>> {
    const { path } = this.#place;
    if (typeof file === "object") return await extract(this.#archive!, file, path);
    using bytes = new FileBytes(join(path, file ?? ""));
    if (bytes.length > MAX_FILE) throw new InputError(`Cannot read ${file}: it is too large`);
    return bytes.read(0, bytes.length);
  }

  [Symbol.dispose](): void {
    if (this.#archive instanceof FileBytes) this.#archive[Symbol.dispose]();
  }
}

const sharedBytes = (shared: SharedArrayBuffer): Bytes => {
  const all = new Uint8Array(shared);
  const read = (from: number, to: number) => new Uint8Array(all.subarray(from, to));
  return { length: all.length, isInMemory: false, read };
};

/** Copies bytes to shared memory. */
export function share(bytes: Uint8Array): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  return shared;
}

/** The name of a file, for messages. */
export const nameOf = (file: ImageFile): string =>
  typeof file === "string" ? file : file?.name ?? "an image";

/** Where classes come from: nowhere, or the top-level folders. */
export type ClassSource = "none" | "folders";

/**
 * The image files of a folder and the folders in it, links followed.
 *
 * @throws {InputError} If it cannot be read, or has no images.
 */
export async function listImages(path: string, classes: ClassSource): Promise<ImageFiles> {
  const found: string[] = [], lost: Lost[] = [];
  let others = 0, linked = 0;
  /** `open` are the real paths of the folders that are being walked through, at each link. */
  const walk = async (folder: string, open: readonly string[]) => {
    for await (const { name: entry, isFile, isDirectory, isSymlink } of Deno.readDir(folder)) {
      if (entry.startsWith(".")) continue;
      const at = join(folder, entry), name = relative(path, at);
      const info = isSymlink ? await Deno.stat(at).catch(() => undefined) : { isFile, isDirectory };
      if (await isUnreachable(at)) lost.push({ name, why: NOT_UTF8 });
      else if (!info) lost.push({ name, why: "it is a link to what is not there" });
      else if (info.isFile && IMAGE_NAME.test(entry)) found.push(name);
      else if (!info.isDirectory) others++;
      else if (!isSymlink) await walk(at, open);
      else {
        const [here, real] = await Promise.all([folder, at].map(realPath));
        if (!here || !real) lost.push({ name, why: NOT_UTF8 });
        else if ([...open, here].some((path) => isWithin(path, real))) {
          lost.push({ name, why: "it is a link to a folder that it is in" });
        } else if (linked++ < MAX_LINKED_FOLDERS) await walk(at, [...open, here]);
        else lost.push({ name, why: "it is one link to a folder of too many" });
      }
    }
  };
  try {
    await walk(path, []);
  } catch (error) {
    throw new InputError(`Cannot read ${path}: ${explain(error)}`);
  }
  const slashed = (name: string) => name.replaceAll(SEPARATOR, "/");
  const files = found.map((name) => ({ name, key: slashed(name) })).sort(byKey)
    .map(({ name }) => name);
  return classify({ name: path, files, place: { kind: "folder", path }, others, lost }, classes);
}

/** Where a path leads; nothing if that is not UTF-8. */
const realPath = (path: string) => Deno.realPath(path).catch(() => undefined);

const isWithin = (path: string, folder: string) =>
  path === folder || path.startsWith(folder.endsWith(SEPARATOR) ? folder : folder + SEPARATOR);

/** Whether a name is one that Deno can see but not use. */
const isUnreachable = async (path: string) =>
  isMangled(path) && !await Deno.lstat(path).catch(() => undefined);

const byKey = (a: { key: string }, b: { key: string }) =>
  a.key < b.key ? -1 : a.key > b.key ? 1 : 0;

/**
 * The image files of an archive.
 *
 * @throws {InputError} If it has no images.
 */
export function listArchive(
  path: string,
  { files, lost }: Unpacked,
  bytes: SharedArrayBuffer | undefined,
  classes: ClassSource,
): ImageFiles {
  const isVisible = ({ name }: Lost | ArchiveEntry) => !/(^|\/)(\.|__MACOSX\/)/.test(name);
  const visible = files.filter(isVisible);
  const images = visible.filter(({ name }) => IMAGE_NAME.test(name))
    .map((entry) => ({ entry, key: entry.name })).sort(byKey).map(({ entry }) => entry);
  const place: Place = bytes ? { kind: "memory", path, bytes } : { kind: "archive", path };
  const others = visible.length - images.length;
  const set = { name: path, files: images, place, others, lost: lost.filter(isVisible) };
  return classify(set, classes);
}

function classify(
  set: Omit<ImageFiles, "count">,
  source: ClassSource,
): ImageFiles {
  const { name, files, lost: [lost] } = set, count = files.length;
  if (!count) {
    throw new InputError(
      `Cannot use ${name}: it holds no images, files that end in .png, .jpg, .gif, .webp or ` +
        `.bmp${lost ? `; left out is ${lost.name}: ${lost.why}` : ""}`,
    );
  }
  if (source === "none") return { ...set, count };
  // A folder's files have the separators of the system.
  const paths = files.map((file) =>
    typeof file === "string" ? file.replaceAll(SEPARATOR, "/") : nameOf(file)
  );
  // An archive of one folder holds what the folder holds.
  const names = classesOfFolders(paths, set.place.kind !== "folder");
  const outside = names.indexOf(undefined);
  if (outside >= 0) {
    throw new InputError(
      `Cannot use ${name} with --classes folders: ${paths[outside]} is in no folder of a class`,
    );
  }
  return { ...set, count, ...numberClasses(names as string[]) };
}
