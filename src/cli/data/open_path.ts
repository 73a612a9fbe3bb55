/**
 * What is at a path: files of image files or arrays, told apart by what is in them.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "@std/path";
import { InputError } from "../../errors.ts";
import { type ArchiveEntry, followLinks } from "../../formats/archive.ts";
import { type Bytes, inMemory, MAX_UNPACKED } from "../../formats/bytes.ts";
import { gunzip, isGzip } from "../../formats/gzip.ts";
import { isTarHeader, readTar } from "../../formats/tar.ts";
import { extract, readZip } from "../../formats/zip.ts";
import { npyPictures, npzPictures, tensorPictures } from "../../data/datasets/array_files.ts";
import { explainPickles, findCifar, readCifar } from "../../data/datasets/cifar.ts";
import { idxPictures, readIdx } from "../../data/datasets/idx.ts";
import { IMAGE_NAME, imageKind } from "../../data/datasets/image.ts";
import type { Pictures } from "../../data/pictures.ts";
import { explain, FileBytes, kindOf, readFile } from "../terminal/files.ts";
import { suggest } from "../terminal/flags.ts";
import type { Progress } from "../terminal/progress.ts";
import { IDX_IMAGES, knownData, readEmojiFolder } from "./builtin_datasets.ts";
import {
  type ClassSource,
  type ImageFiles,
  listArchive,
  listImages,
  share,
} from "./image_files.ts";

/**
 * The pictures or image files at a path.
 *
 * @throws {InputError} If there are none, or they cannot be read.
 */
export async function openPath(
  path: string,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  const kind = await kindOf(path), names = Object.keys(knownData);
  if (kind === "nothing") {
    throw new InputError(
      `Cannot use ${path}: there is no such file or folder; data sets known by name are: ` +
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
  const names: string[] = [], files = new Set<string>();
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      names.push(name);
      if (!isDirectory) files.add(name);
    }
  } catch (error) {
    throw new InputError(`Cannot read ${folder}: ${explain(error)}`);
  }
  const idx = names.filter((name) => IDX_NAME.test(name)).sort();
  const plain = idx.find((name) => name.replace(".idx", "-idx").startsWith(IDX_IMAGES));
  if (idx.length > 1 && !plain) {
    throw new InputError(
      `Cannot use ${folder}: it holds several sets; give one of its files: ${idx.join(", ")}`,
    );
  }
  if (idx.length) return await openIdx(join(folder, plain ?? idx[0]), folder);
  const version = findCifar((name) => files.has(name));
  if (version) {
    const read = (name: string) => readFile(join(folder, name));
    const parts = await Promise.all(version.files.map(read));
    const meta = files.has(version.classes) ? await read(version.classes) : undefined;
    return readCifar(version, parts, meta);
  }
  const inner = names.find((name) => /^cifar-(10-batches-bin|100-binary)$/.test(name)) ??
    names.find((name) => /^cifar-(10-batches-py|100-python)$/.test(name));
  if (inner) return await openFolder(join(folder, inner), classes, progress);
  if (files.size === names.length) {
    refusePickles(
      folder,
      names.map((name) => `${basename(resolve(folder))}/${name}`),
    );
  }
  if (names.includes("emoji.json")) return await readEmojiFolder(folder);
  progress.update(`looking through ${folder}`);
  return await listImages(folder, classes);
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
    if (isGzip(start)) return await openGzip(path, file, classes, progress);
    if (text.startsWith("PK\x03\x04") || text.startsWith("PK\x05\x06")) {
      const entries = await readZip(file, path);
      const has = (pattern: RegExp) => entries.some(({ name }) => pattern.test(name));
      // Whatever else there is: a file that says so, or one of arrays and no image files, holds arrays.
      const isArrays = has(/\.npy$/) && (/\.npz$/i.test(path) || !has(IMAGE_NAME));
      if (!isArrays) return await openArchive(path, entries, file, classes);
      return await npzPictures(file, path);
    }
    if (text.startsWith("\x93NUMPY")) {
      isKept = file.length > IN_MEMORY;
      const bytes = isKept ? file : inMemory(file.read(0, file.length));
      return npyPictures(bytes, path);
    }
    if (isTarHeader(start)) return await openArchive(path, readTar(file, path), file, classes);
    if (/\.safetensors$/i.test(path)) return tensorPictures(await readFile(path), path);
    if (start[0] === 0 && start[1] === 0 && start[2]) return await openIdx(path, path);
    refusePickles(path, [`${basename(dirname(resolve(path)))}/${basename(path)}`]);
    throw new InputError(`Cannot use ${path}: ${explainOther(start)}`);
  } finally {
    if (!isKept) file[Symbol.dispose]();
  }
}

/** @throws {InputError} If there are no images, but the files of a set that is pickled. */
function refusePickles(place: string, paths: readonly string[]): void {
  const why = paths.some((path) => IMAGE_NAME.test(path)) ? undefined : explainPickles(paths);
  if (why) throw new InputError(`Cannot use ${place}: ${why}`);
}

/** Why a file is no data set, by how it starts. */
function explainOther(start: Uint8Array): string {
  if (imageKind(start)) return "it is a single image; give the folder that holds the images";
  // Versions 2 to 5 of the protocol.
  if (start[0] === 0x80 && start[1] >= 2 && start[1] <= 5) {
    return "it is pickled, which only weights and CIFAR may be; save its arrays with numpy.savez";
  }
  return "it is no IDX, zip, tar, npy, npz or safetensors file, raw or gzipped";
}

/** An IDX file or a tar archive that is gzipped. */
async function openGzip(
  path: string,
  file: FileBytes,
  classes: ClassSource,
  progress: Progress,
): Promise<Pictures | ImageFiles> {
  if (IDX_NAME.test(path) || /idx3?-ubyte/.test(path)) return await openIdx(path, path);
  progress.update(`unpacking ${path}`);
  const bytes = await gunzip(file, `Cannot read ${path}`, Math.min(MAX_TAR, MAX_UNPACKED));
  if (!isTarHeader(bytes)) {
    const idx = bytes[0] === 0 && bytes[1] === 0 && bytes[2];
    if (idx) return idxPictures(path, await readIdx(bytes, path));
    throw new InputError(`Cannot use ${path}: it holds neither a tar archive nor IDX data`);
  }
  return await openArchive(path, readTar(inMemory(bytes), path), inMemory(bytes), classes);
}

/** What is in an archive: the files of CIFAR-10 or CIFAR-100, or images. */
async function openArchive(
  path: string,
  entries: readonly ArchiveEntry[],
  bytes: Bytes,
  classes: ClassSource,
): Promise<Pictures | ImageFiles> {
  const archive = followLinks(entries), names = archive.files.map(({ name }) => name);
  const byName = new Map(archive.files.map((entry) => [basename(entry.name), entry]));
  const version = findCifar((name) => byName.has(name));
  if (!version) {
    refusePickles(path, names);
    const shared = bytes.isInMemory ? share(bytes.read(0, bytes.length)) : undefined;
    return listArchive(path, archive, shared, classes);
  }
  const missing = version.files.find((name) => !byName.has(name));
  if (missing) throw new InputError(`Cannot use ${version.name}: ${missing} is missing`);
  const read = (name: string) => extract(bytes, byName.get(name)!, path);
  return readCifar(
    version,
    await Promise.all(version.files.map(read)),
    byName.has(version.classes) ? await read(version.classes) : undefined,
  );
}
