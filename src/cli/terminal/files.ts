/**
 * Reading files with readable errors, and writing them atomically.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "@std/path";
import { parsePythonJson } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { DeviceError } from "../../gpu/device.ts";
import type { Bytes } from "../../formats/bytes.ts";

/** A readable reason for a file-system error. */
export function explain(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "it does not exist";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.NotCapable) return "Deno was not given permission for it";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder";
  if (error instanceof Deno.errors.NotADirectory) return "a part of its path is not a folder";
  // Without the call and the path, which Deno appends.
  return (error as Error).message.replace(/ \(os error \d+\).*/s, "");
}

/** @throws {InputError} If the file cannot be read. */
export async function readFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw new InputError(`Cannot read ${path}: ${explain(error)}`);
  }
}

/** Bytes of a file on a disk. Disposing of it closes the file. */
export class FileBytes implements Bytes, Disposable {
  readonly length: number;
  readonly isInMemory = false;
  readonly #file: Deno.FsFile;
  readonly #path: string;

  /** @throws {InputError} If it cannot be read. */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#file = Deno.openSync(path);
      this.length = this.#file.statSync().size;
    } catch (error) {
      throw new InputError(`Cannot read ${path}: ${explain(error)}`);
    }
  }

  read(from: number, to: number, into?: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const size = Math.max(0, Math.min(to, this.length) - from);
    const bytes = into?.subarray(0, size) ?? new Uint8Array(size);
    let at = 0;
    try {
      this.#file.seekSync(from, Deno.SeekMode.Start);
      while (at < size) {
        const read = this.#file.readSync(bytes.subarray(at));
        if (!read) break;
        at += read;
      }
    } catch (error) {
      throw new InputError(`Cannot read ${this.#path}: ${explain(error)}`);
    }
    return bytes.subarray(0, at);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Reads JSON, including what Python writes beyond the standard.
 *
 * @throws {InputError} If the file cannot be read or is not JSON.
 */
export async function readJson(path: string): Promise<unknown> {
  const text = new TextDecoder().decode(await readFile(path));
  try {
    return parsePythonJson(text);
  } catch (error) {
    throw new InputError(`Cannot read ${path} as JSON: ${(error as Error).message}`);
  }
}

/** Whether a path may have had bytes that are not UTF-8, which Deno replaces with this character. */
export const isMangled = (path: string): boolean => path.includes("\ufffd");

/** What to do about such a path if there is no file. */
export const NOT_UTF8 =
  "its name is not UTF-8, and Deno opens no others; rename it, by convmv or mv";

/** Whether a path is a file, a folder, or does not exist. */
export async function kindOf(path: string): Promise<"file" | "folder" | "nothing"> {
  try {
    return (await Deno.stat(path)).isDirectory ? "folder" : "file";
  } catch (error) {
    // The second: a part of its path is a file.
    const { NotADirectory, NotFound } = Deno.errors;
    if (error instanceof NotFound && isMangled(path)) {
      throw new InputError(`Cannot look at ${path}: ${NOT_UTF8}`);
    }
    if (error instanceof NotFound || error instanceof NotADirectory) return "nothing";
    throw new InputError(`Cannot look at ${path}: ${explain(error)}`);
  }
}

const may = (name: "read" | "write", path: string) =>
  Deno.permissions.querySync({ name, path }).state === "granted";

/** Whether Deno may look at a path. What it may not look at cannot be checked before it is written. */
export const mayRead = (path: string): boolean => may("read", path);

/** Whether a path to write to is a file, a folder, or nothing, as far as Deno may look. */
export const kindOfOutput = async (path: string): Promise<"file" | "folder" | "nothing"> =>
  mayRead(path) ? await kindOf(path) : "nothing";

/** The path that stands for standard output, or standard input. */
export const STREAM = "-";

/** @throws {InputError} If a path stands for standard input, which is not read from. */
export function refuseStdin(path: string, what: string): void {
  if (path !== STREAM) return;
  throw new InputError(
    `Cannot read ${what} from standard input: give the path of a file or folder`,
  );
}

/** @throws {InputError} If a file cannot be written to this path. */
export async function checkWritable(path: string): Promise<void> {
  if (await kindOfOutput(path) === "folder") {
    throw new InputError(`Cannot write ${path}: it is a folder`);
  }
  const target = followLink(path);
  if (await isSpecial(target)) return;
  if (mayReplace(target)) return await probe(dirname(target), path);
  if (may("write", target)) return;
  throw new InputError(`Cannot write ${path}: ${explain(new Deno.errors.NotCapable())}`);
}

/** Whether something may be written under another name first: Deno may be bound to its own name. */
export const mayReplace = (target: string) =>
  ["read", "write"].every((name) => may(name as "read" | "write", temporaryName(target)));

/** Links in a row that are followed, as many as Linux does. */
const MAX_LINKS = 40;

/**
 * Where a path leads: what a symbolic link points to, whether that exists or not.
 *
 * @throws {InputError} If links lead in circles.
 */
export function followLink(path: string): string {
  let at = path;
  for (let links = 0; links <= MAX_LINKS; links++) {
    try {
      if (!Deno.lstatSync(at).isSymlink) return at;
      at = resolve(Deno.realPathSync(dirname(at)), Deno.readLinkSync(at));
    } catch {
      // Nothing is there yet, or Deno may not look.
      return at;
    }
  }
  throw new InputError(`Cannot write ${path}: its symbolic links lead in circles`);
}

/** Whether a path is a device or a pipe, which can be written to but not replaced. */
async function isSpecial(path: string): Promise<boolean> {
  const info = await Deno.stat(path).catch(() => undefined);
  return info !== undefined && !info.isFile && !info.isDirectory;
}

/**
 * Checks that files can be written to a folder, which need not exist yet.
 *
 * @param isDeep Whether its parent folders may be missing too.
 * @throws {InputError} If they cannot.
 */
export async function checkFolder(path: string, isDeep = false): Promise<void> {
  // Without permission to look around, what is wrong is told when it is written.
  if (!mayRead(dirname(path)) || !mayRead(".")) return;
  const here = resolve(path), isThere = await kindOf(here) !== "nothing";
  const above = isDeep ? await nearestFolder(here) : isThere ? here : dirname(here);
  await probe(above, path);
}

/** Writes an empty file to `folder` and removes it. */
async function probe(folder: string, path: string): Promise<void> {
  const kind = await kindOf(folder);
  if (kind !== "folder") {
    const why = kind === "file" ? "is a file, not a folder" : "does not exist";
    throw new InputError(
      resolve(folder) === resolve(path)
        ? `Cannot write to ${path}: it ${why}`
        : `Cannot write ${path}: the folder ${folder} ${why}`,
    );
  }
  const empty = temporaryName(join(folder, basename(resolve(path))));
  try {
    await Deno.writeFile(empty, new Uint8Array());
    await Deno.remove(empty);
  } catch (error) {
    throw new InputError(`Cannot write ${path}: ${explain(error)}`);
  }
}

/** Temporary names, and the name that each stands for. */
const TEMPORARY = /^\.(.*)\.\d+\.part$/;
/** The name that a file or folder has until it is whole. */
export const temporaryName = (path: string) =>
  join(dirname(path), `.${basename(path)}.${Deno.pid}.part`);

/**
 * Writes a file under a temporary name and renames it once all of it is on the disk, unless Deno may
 * write to no other name than its own. Where the path is a symbolic link, its target is replaced and
 * the link stays.
 *
 * @param content The content, or a function that writes it.
 */
export async function writeWhole(
  path: string,
  content: Uint8Array | string | ((file: Deno.FsFile) => Promise<void>),
): Promise<void> {
  const target = followLink(path), isFile = !await isSpecial(target);
  const isReplaced = isFile && mayReplace(target);
  const written = isReplaced ? temporaryName(target) : target;
  try {
    {
      using file = await Deno.open(written, { write: true, create: true, truncate: true });
      await (typeof content === "function" ? content(file) : writeAll(file, content));
      if (isReplaced) await file.sync();
    }
    if (!isReplaced) return;
    await Deno.rename(written, target);
    await syncPath(dirname(target));
  } catch (error) {
    if (isFile) await Deno.remove(written).catch(() => {});
    if (error instanceof DeviceError) throw error;
    throw new Error(`Cannot write ${path}: ${explain(error)}`, { cause: error });
  }
}

/** Writes a file as {@linkcode writeWhole} does, or to standard output. */
export async function writeOutput(path: string, bytes: Uint8Array): Promise<void> {
  if (path !== STREAM) return await writeWhole(path, bytes);
  try {
    await writeAll(Deno.stdout, bytes);
  } catch (error) {
    throw new Error(`Cannot write to standard output: ${explain(error)}`, { cause: error });
  }
}

/** Appends text to a file. */
export async function appendText(path: string, text: string): Promise<void> {
  try {
    using file = await Deno.open(path, { append: true, create: true });
    await writeAll(file, text);
  } catch (error) {
    throw new Error(`Cannot write ${path}: ${explain(error)}`, { cause: error });
  }
}

/** Writes all bytes at the current position of a file. */
export async function writeAll(
  file: Pick<Deno.FsFile, "write">,
  data: Uint8Array | string,
): Promise<void> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Flushes a file, or the entries of a folder, to the disk, where the system can. */
export async function syncPath(path: string): Promise<void> {
  try {
    using file = await Deno.open(path);
    await file.sync();
  } catch { /* Windows opens no folders. */ }
}

/** Makes a hard link to a file, replacing what is there; a copy where there are no hard links. */
export async function linkFile(path: string, other: string): Promise<void> {
  try {
    await Deno.remove(other).catch(() => {});
    await Deno.link(followLink(path), other).catch(() => Deno.copyFile(path, other));
  } catch (error) {
    throw new Error(`Cannot write ${other}: ${explain(error)}`, { cause: error });
  }
}

/**
 * Removes what {@linkcode writeWhole} left behind when its process was killed: in a folder, and beside
 * the targets of symbolic links in it.
 */
export async function removeTemporary(folder: string): Promise<void> {
  for (const name of await listFolder(folder)) {
    const path = join(folder, name), target = followLink(path);
    if (TEMPORARY.test(name)) await Deno.remove(path).catch(() => {});
    if (target === path) continue;
    const above = dirname(target);
    for (const other of await listFolder(above)) {
      if (TEMPORARY.exec(other)?.[1] !== basename(target)) continue;
      await Deno.remove(join(above, other)).catch(() => {});
    }
  }
}

/** Removes a file, if it is there. */
export async function removeFile(path: string): Promise<void> {
  if (await kindOf(path) === "file") await Deno.remove(path);
}

/** The entries of a folder in alphabetical order; none if it does not exist. */
export async function listFolder(folder: string): Promise<string[]> {
  if (await kindOf(folder) !== "folder") return [];
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

/**
 * Free bytes on the disk of a folder; `undefined` if unknown, or without Deno's permission
 * `--allow-sys=statfs`.
 */
export async function freeSpace(folder: string): Promise<number | undefined> {
  const permission = await Deno.permissions.query({ name: "sys", kind: "statfs" });
  if (permission.state !== "granted") return undefined;
  try {
    const { statfs } = await import("node:fs/promises");
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

/** The nearest existing folder at or above a path, or that Deno may not look at. */
export async function nearestFolder(path: string): Promise<string> {
  let above = mayRead(".") ? resolve(path) : path;
  while (mayRead(above) && await kindOf(above) === "nothing") above = dirname(above);
  return above;
}

/** @throws {InputError} If the folder cannot be created. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    if (await kindOf(path) === "folder") return;
    throw new InputError(`Cannot create the folder ${path}: ${explain(error)}`);
  }
}
