/**
 * Files: reading with messages that help, writing whole or not at all, and where models are.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "@std/path";
import { InputError } from "../../errors.ts";
import { DeviceError } from "../../gpu/device.ts";
import { parseNetwork } from "../../model/network.ts";
import type { Bytes } from "../../formats/bytes.ts";
import { assembleModel, type Model, readModel } from "../../model/model.ts";
import { readSafetensors } from "../../formats/safetensors.ts";
import { parseSchedule } from "../../diffusion/schedule.ts";
import { fetchModel, type ShippedModel, shippedModels } from "../../model/pretrained.ts";

/** What is wrong with a path, in words. */
export function explain(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "it does not exist";
  if (error instanceof Deno.errors.PermissionDenied) return "reading or writing it is not allowed";
  if (error instanceof Deno.errors.NotCapable) return "Deno was not given permission for it";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder";
  if (error instanceof Deno.errors.NotADirectory) return "a part of its path is no folder";
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

  read(from: number, to: number): Uint8Array<ArrayBuffer> {
    const size = Math.max(0, Math.min(to, this.length) - from), bytes = new Uint8Array(size);
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

/** @throws {InputError} If the file cannot be read or is no JSON. */
export async function readJson(path: string): Promise<unknown> {
  const text = new TextDecoder().decode(await readFile(path));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read ${path} as JSON: ${(error as Error).message}`);
  }
}

/** Whether a path may have had bytes that are not UTF-8, in place of which Deno puts this. */
export const isMangled = (path: string): boolean => path.includes("\ufffd");

/** What is to be done about such a path, if there is nothing. */
export const NOT_UTF8 =
  "its name is not UTF-8, and Deno opens no others; rename it, by convmv or mv";

/** What is at a path. */
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

/** @throws {InputError} If no file could be written at this path. */
export async function checkWritable(path: string): Promise<void> {
  if (await kindOf(path) === "folder") throw new InputError(`Cannot write ${path}: it is a folder`);
  await probe(dirname(path), path);
}

/**
 * Checks that files could be written to a folder, be it there or yet to be made.
 *
 * @param isDeep Whether folders above it may be missing too.
 * @throws {InputError} If not.
 */
export async function checkFolder(path: string, isDeep = false): Promise<void> {
  const here = resolve(path), isThere = await kindOf(here) !== "nothing";
  const above = isDeep ? await nearestFolder(here) : isThere ? here : dirname(here);
  await probe(above, path);
}

/** Writes an empty file to `folder` and takes it away. */
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

const temporaryName = (path: string) => join(dirname(path), `.${basename(path)}.${Deno.pid}.part`);

/**
 * Writes a file under another name, and gives it its own when all of it is on the disk.
 *
 * @param content What is in it, or what writes that.
 */
export async function writeWhole(
  path: string,
  content: Uint8Array | string | ((file: Deno.FsFile) => Promise<void>),
): Promise<void> {
  const temporary = temporaryName(path);
  try {
    {
      using file = await Deno.open(temporary, { write: true, create: true, truncate: true });
      await (typeof content === "function" ? content(file) : writeAll(file, content));
      await file.sync();
    }
    await Deno.rename(temporary, path);
    await syncPath(dirname(path));
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    if (error instanceof DeviceError) throw error;
    throw new Error(`Cannot write ${path}: ${explain(error)}`, { cause: error });
  }
}

/** Adds text to the end of a file. */
export async function appendText(path: string, text: string): Promise<void> {
  try {
    using file = await Deno.open(path, { append: true, create: true });
    await writeAll(file, text);
  } catch (error) {
    throw new Error(`Cannot write ${path}: ${explain(error)}`, { cause: error });
  }
}

/** Writes all bytes, or all of a text, where the file is. */
export async function writeAll(file: Deno.FsFile, data: Uint8Array | string): Promise<void> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Waits until a file, or the names in a folder, are on the disk; some systems cannot tell. */
export async function syncPath(path: string): Promise<void> {
  try {
    using file = await Deno.open(path);
    await file.sync();
  } catch { /* Windows opens no folders. */ }
}

/** Gives a file a second name, in place of whatever had it; a copy where there are no links. */
export async function linkFile(path: string, other: string): Promise<void> {
  try {
    await Deno.remove(other).catch(() => {});
    await Deno.link(path, other).catch(() => Deno.copyFile(path, other));
  } catch (error) {
    throw new Error(`Cannot write ${other}: ${explain(error)}`, { cause: error });
  }
}

/** Takes away what {@linkcode writeWhole} left in a folder when its process was killed. */
export async function removeTemporary(folder: string): Promise<void> {
  for (const name of await listFolder(folder)) {
    if (/^\..*\.\d+\.part$/.test(name)) await Deno.remove(join(folder, name)).catch(() => {});
  }
}

/** The names in a folder in alphabetical order, none if there is no such folder. */
export async function listFolder(folder: string): Promise<string[]> {
  if (await kindOf(folder) !== "folder") return [];
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

/**
 * Bytes that can still be written to the disk of a folder; `undefined` where the system does not
 * tell, or Deno was not given `--allow-sys=statfs`.
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

/** The nearest folder at or above a path that is there. */
export async function nearestFolder(path: string): Promise<string> {
  let above = resolve(path);
  while (await kindOf(above) === "nothing") above = dirname(above);
  return above;
}

/** @throws {InputError} If the folder cannot be made. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    if (await kindOf(path) === "folder") return;
    throw new InputError(`Cannot make the folder ${path}: ${explain(error)}`);
  }
}

/**
 * Loads a model: the name of one that comes with the package, a file, or a folder: of a training, or
 * as diffusers writes them. A name is no path, so that a folder of this name, of data perhaps, does
 * not change what `sample` does without flags. Weights are read when they are needed, from the file
 * as it is now: it stays open.
 *
 * @throws {InputError} If there is none, or it is damaged.
 */
export async function loadModel(place: string): Promise<Model> {
  if (shippedModels.some((name) => name === place)) return await fetchModel(place as ShippedModel);
  const kind = await kindOf(place);
  if (kind === "nothing") {
    throw new InputError(
      `Cannot load the model ${place}: there is no such file or folder, and the models that come ` +
        `with the package are: ${shippedModels.join(", ")}`,
    );
  }
  if (kind === "file") return readModel(new FileBytes(place), place);
  const own = join(place, "model.safetensors");
  if (await kindOf(own) === "file") return readModel(new FileBytes(own), own);
  return await loadDiffusers(place);
}

/** A checkpoint in the layout of diffusers, its parts in one folder or in folders of their own. */
async function loadDiffusers(folder: string): Promise<Model> {
  const unet = await kindOf(join(folder, "unet")) === "folder" ? join(folder, "unet") : folder;
  const weights = join(unet, "diffusion_pytorch_model.safetensors");
  if (await kindOf(weights) !== "file") {
    const pickled = await kindOf(weights.replace(/\.safetensors$/, ".bin")) === "file";
    throw new InputError(
      pickled
        ? `Cannot load ${folder}: its weights are pickled, which could run any code; convert them ` +
          "to safetensors"
        : `Cannot load ${folder}: it holds neither model.safetensors nor ` +
          "diffusion_pytorch_model.safetensors",
    );
  }
  const places = [join(folder, "scheduler"), folder].map((f) => join(f, "scheduler_config.json"));
  const kinds = await Promise.all(places.map(kindOf));
  const schedule = places.find((_, i) => kinds[i] === "file");
  const { tensors } = readSafetensors(new FileBytes(weights), weights);
  return assembleModel(
    parseNetwork(await readJson(join(unet, "config.json"))),
    parseSchedule(schedule ? await readJson(schedule) : {}),
    tensors,
    folder,
  );
}
