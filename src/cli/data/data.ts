/**
 * Opening data sets: detects what a path holds, and reads it.
 *
 * @module
 */

import { basename, dirname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import { inMemory, isGzip, MAX_UNPACKED, unpack } from "../../formats/bytes.ts";
import { cifarPictures, cifarVersions } from "../../data/datasets/cifar.ts";
import { idxPictures, readIdx } from "../../data/datasets/idx.ts";
import { imageKind, readImageHeader } from "../../data/datasets/image.ts";
import { npyPictures, npzPictures } from "../../data/datasets/array_files.ts";
import { isTarHeader, readTar } from "../../formats/tar.ts";
import { tensorPictures } from "../../data/datasets/array_files.ts";
import { type ArchiveEntry, extract, readZip } from "../../formats/zip.ts";
import type { Dataset } from "../../data/dataset.ts";
import { pictureDataset, type Pictures } from "../../data/pictures.ts";
import { decodedDataset, defaultWorkers } from "./decode_pool.ts";
import { decodeImage } from "./decode.ts";
import { explain, kindOf, readFile, refuseStdin } from "../terminal/files.ts";
import { suggest } from "../terminal/flags.ts";
import {
  type ImageOptions,
  type Look,
  parseMaxBad,
  preparationOf,
} from "../commands/image_options.ts";
import {
  type ClassSource,
  FileBytes,
  type ImageFiles,
  ImageReader,
  listArchive,
  listFolder,
  nameOf,
  share,
} from "./image_files.ts";
import { IDX_IMAGES, knownData, readEmojiFolder } from "./builtin_datasets.ts";
import type { Progress } from "../terminal/progress.ts";

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
  { cache = false, maxBad = "1%", workers = defaultWorkers() }: ReadOptions = {},
): Promise<Dataset> {
  parseMaxBad(maxBad, 0);
  refuseStdin(place, "a data set");
  const known = Object.hasOwn(knownData, place) ? await knownData[place](progress) : place;
  const found = typeof known === "string" ? await openPath(known, images.classes, progress) : known;
  const look = "picture" in found
    ? { ...await found.picture(0), isOneSize: true }
    : await lookAt(found);
  const preparation = preparationOf(place, images, look), name = place;
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
    { ...set, name, files: [], place: shared, others: 0 },
    preparation,
    options,
  );
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
 * The test split of a data set: for MNIST and data sets in its format, the files t10k-*; `undefined`
 * if there is none.
 */
export async function heldBack(place: string): Promise<string | undefined> {
  if (place === "mnist") return "mnist-test";
  if (Object.hasOwn(knownData, place) || await kindOf(place) !== "folder") return undefined;
  for await (const { name } of Deno.readDir(place)) {
    if (/^t10k-images[-.]idx3-ubyte(\.gz)?$/.test(name)) return join(place, name);
  }
  return undefined;
}

/** How many images are inspected to find size and channels of a data set. */
const LOOKED_AT = 64;

/** Size and channels of a data set, from evenly chosen images. Damaged ones are skipped. */
async function lookAt(files: ImageFiles): Promise<Look> {
  using reader = new ImageReader(files.place);
  const step = Math.max(1, files.count / LOOKED_AT);
  let first: Look | undefined, isGrey = true, isOneSize = true, size = "", trouble: unknown;
  for (let at = 0; at < files.count; at += step) {
    const file = files.files[Math.floor(at)];
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

/** Opens a file or folder. */
async function openPath(
  path: string,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  const kind = await kindOf(path), names = Object.keys(knownData);
  if (kind === "nothing") {
    throw new InputError(
      `Cannot train on ${path}: there is no such file or folder; data sets known by name are: ` +
        names.join(", ") + suggest(path, names),
    );
  }
  return kind === "folder"
    ? await openFolder(path, classes, progress)
    : await openFile(path, classes, progress);
}

/** IDX files as they are called where they are published; unpackers write a dot for a hyphen. */
const IDX_NAME = /train-images[-.]idx3-ubyte(\.gz)?$/;

async function openFolder(
  folder: string,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch (error) {
    throw new InputError(`Cannot read ${folder}: ${explain(error)}`);
  }
  const idx = names.filter((name) => IDX_NAME.test(name)).sort();
  const plain = idx.find((name) => name.replace(".idx", "-idx").startsWith(IDX_IMAGES));
  if (idx.length > 1 && !plain) {
    throw new InputError(
      `Cannot train on ${folder}: it holds several sets; give one of its files: ${idx.join(", ")}`,
    );
  }
  if (idx.length) return await openIdx(join(folder, plain ?? idx[0]), folder);
  for (const version of cifarVersions) {
    if (!names.includes(version.files[0])) continue;
    const read = (name: string) => readFile(join(folder, name));
    const files = await Promise.all(version.files.map(read));
    const meta = names.includes(version.classes) ? await read(version.classes) : undefined;
    return cifarPictures(version.name, files, meta);
  }
  const inner = names.find((name) => /^cifar-(10-batches|100)-bin(ary)?$/.test(name));
  if (inner) return await openFolder(join(folder, inner), classes, progress);
  if (names.includes("emoji.json")) return await readEmojiFolder(folder);
  progress.update(`looking through ${folder}`);
  return await listFolder(folder, classes);
}

/** An IDX file of images, and that of their labels if it is there. */
async function openIdx(path: string, name: string): Promise<Pictures> {
  const images = await readIdx(await readFile(path), path);
  // Some unpackers write a dot for the last hyphen but one.
  const labels = basename(path).replace("images", "labels").replace("idx3", "idx1");
  const bare = labels.replace(/\.gz$/, "").replace(".idx", "-idx");
  const spellings = [bare, bare.replace("-idx", ".idx")].flatMap((n) => [n, `${n}.gz`]);
  const isTransposed = /emnist/i.test(basename(path));
  for (const spelling of labels === basename(path) ? [] : spellings) {
    const at = join(dirname(path), spelling);
    if (await kindOf(at) !== "file") continue;
    return idxPictures(name, images, await readIdx(await readFile(at), at), isTransposed);
  }
  return idxPictures(name, images, undefined, isTransposed);
}

/** Larger files are read in parts. */
const IN_MEMORY = 2 ** 30;
/** Larger compressed tar archives must be unpacked by the user. */
const MAX_TAR = 2 ** 32;

async function openFile(
  path: string,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  const file = new FileBytes(path);
  let isKept = false;
  try {
    const start = file.read(0, 512), text = String.fromCharCode(...start.subarray(0, 8));
    if (isGzip(start)) return await openGzip(path, classes, progress);
    if (text.startsWith("PK\x03\x04") || text.startsWith("PK\x05\x06")) {
      const entries = readZip(file, path);
      const isArrays = entries.length > 0 && entries.every(({ name }) => name.endsWith(".npy"));
      if (!isArrays) return listArchive(path, entries, undefined, classes);
      return await npzPictures(file, path);
    }
    if (text.startsWith("\x93NUMPY")) {
      isKept = file.length > IN_MEMORY;
      const bytes = isKept ? file : inMemory(file.read(0, file.length));
      return npyPictures(bytes, path);
    }
    if (isTarHeader(start)) {
      const entries = readTar(file, path);
      const read = (entry: ArchiveEntry) => extract(file, entry, path);
      return await openCifar(entries, read) ?? listArchive(path, entries, undefined, classes);
    }
    if (/\.safetensors$/i.test(path)) return tensorPictures(await readFile(path), path);
    if (start[0] === 0 && start[1] === 0 && start[2]) return await openIdx(path, path);
    const isImage = imageKind(start) !== undefined;
    throw new InputError(
      `Cannot train on ${path}: ` +
        (isImage
          ? "it is a single image; give the folder that holds the images"
          : "it is no IDX, zip, tar, npy, npz or safetensors file, raw or gzipped"),
    );
  } finally {
    if (!isKept) file[Symbol.dispose]();
  }
}

/** An IDX file or a tar archive that is gzipped. */
async function openGzip(
  path: string,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  if (IDX_NAME.test(path) || /idx3?-ubyte/.test(path)) return await openIdx(path, path);
  progress.update(`unpacking ${path}`);
  const { readable } = await Deno.open(path);
  const limit = Math.min(MAX_TAR, MAX_UNPACKED);
  const bytes = await unpack(readable, "gzip", `Cannot read ${path}`, limit);
  if (!isTarHeader(bytes)) {
    const idx = bytes[0] === 0 && bytes[1] === 0 && bytes[2];
    if (idx) return idxPictures(path, await readIdx(bytes, path));
    throw new InputError(`Cannot train on ${path}: it holds neither a tar archive nor IDX data`);
  }
  const entries = readTar(inMemory(bytes), path);
  const read = (entry: ArchiveEntry) => extract(inMemory(bytes), entry, path);
  const cifar = await openCifar(entries, read);
  if (cifar) return cifar;
  return listArchive(path, entries, share(bytes), classes);
}

/** CIFAR-10 or CIFAR-100 in an archive, if that is what it holds. */
async function openCifar(
  entries: readonly ArchiveEntry[],
  read: (entry: ArchiveEntry) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Pictures | undefined> {
  const byName = new Map(entries.map((entry) => [basename(entry.name), entry]));
  const version = cifarVersions.find(({ files }) => byName.has(files[0]));
  if (!version) return undefined;
  const missing = version.files.find((name) => !byName.has(name));
  if (missing) throw new InputError(`Cannot use ${version.name}: ${missing} is missing`);
  const classes = byName.get(version.classes);
  return cifarPictures(
    version.name,
    await Promise.all(version.files.map((name) => read(byName.get(name)!))),
    classes ? await read(classes) : undefined,
  );
}
