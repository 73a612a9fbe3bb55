/**
 * Downloads that resume where they were cut off, and are verified by a checksum.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import { explain, followLink, kindOf, makeFolder } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { formatBytePair, formatBytes } from "../../units.ts";
import {
  Refusal,
  type Request,
  request,
  Silence,
  sleep,
  type Wait,
  withRetries,
} from "./request.ts";

/** A published file. */
export interface Published {
  /** Its URL without the file name. */
  readonly base: string;
  readonly file: string;
  readonly bytes: number;
  /** Its SHA-256, in hexadecimal digits. */
  readonly sha256: string;
}

/** What a file is checked by: SHA-256, or the SHA-1 that git gives its content. */
export interface Checksum {
  readonly kind: "SHA-256" | "git SHA-1";
  /** In hexadecimal digits. */
  readonly digits: string;
}

/** A file elsewhere. */
export interface RemoteFile extends Request {
  /** What it is called while it comes. */
  readonly name: string;
  readonly bytes: number;
  readonly checksum: Checksum;
}

/**
 * Downloads a published file to a folder unless it is there already; returns its path.
 *
 * @throws {Error} If it cannot be downloaded, or its checksum does not match.
 */
export async function obtain(
  file: Published,
  folder: string,
  progress: Progress,
  wait: Wait = sleep,
): Promise<string> {
  const path = followLink(join(folder, file.file)), part = `${path}.part`;
  if (await kindOf(path) === "file") {
    // It was checked when it came; a look at its size tells whether the disk filled up since.
    if ((await Deno.stat(path)).size === file.bytes) return path;
    await Deno.remove(path);
  }
  await makeFolder(dirname(path));
  const url = `${file.base}${file.file}`, had = await sizeOf(part);
  const done = had && had <= file.bytes ? ` (${formatBytes(had)} done)` : "";
  progress.say(`downloading ${url}, ${formatBytes(file.bytes)}${done}, to ${folder}`);
  const checksum = { kind: "SHA-256", digits: file.sha256 } as const;
  await download({ url, name: file.file, bytes: file.bytes, checksum }, part, progress, wait);
  await Deno.rename(part, path);
  progress.clear();
  return path;
}

/**
 * Downloads a file, or the rest of it.
 *
 * @param part The path that it comes to; where a part of it is already, that is kept.
 * @throws {Error} If it cannot be downloaded, or its checksum does not match.
 */
export async function download(
  file: RemoteFile,
  part: string,
  progress: Progress,
  wait: Wait = sleep,
): Promise<void> {
  const { url, name, bytes, checksum } = file, size = formatBytes(bytes);
  let had = await sizeOf(part);
  if (had > bytes) await Deno.remove(part), had = 0;
  // An empty file has no rest to ask for.
  if (!bytes) await Deno.writeFile(part, new Uint8Array());
  const hasProgressed = async () => had < (had = await sizeOf(part));
  const fetchAll = async () => {
    while ((had = await sizeOf(part)) < bytes) {
      await fetchRest(file, part, had, (now) => {
        progress.update(`downloading ${name}: ${formatBytes(now)} of ${size}`);
      });
    }
  };
  try {
    await withRetries(fetchAll, wait, hasProgressed);
  } catch (error) {
    if (error instanceof InputError) throw error;
    if (error instanceof Refusal) throw new Refusal(`Cannot download ${url}: ${error.message}`);
    const resumes = `; the same command resumes after ${formatBytes(await sizeOf(part))}`;
    throw new Error(`Cannot download ${url}: ${explain(error)}${resumes}`, { cause: error });
  }
  progress.update(`checking ${name}`);
  const found = await digest(part, checksum.kind, bytes);
  if (found === checksum.digits) return;
  await Deno.remove(part);
  throw new Refusal(
    `Cannot use ${url}: its ${checksum.kind} is ${found}, but ${checksum.digits} was published; it ` +
      "was deleted, the same command tries again",
  );
}

const sizeOf = async (path: string) =>
  await kindOf(path) === "file" ? (await Deno.stat(path)).size : 0;

/** Fetches the rest of a file; servers without range requests send all of it. */
async function fetchRest(
  { bytes: size, headers = {}, ...file }: RemoteFile,
  part: string,
  had: number,
  onProgress: (bytes: number) => void,
): Promise<void> {
  using silence = new Silence();
  const range: Record<string, string> = had ? { range: `bytes=${had}-` } : {};
  const response = await request({ ...file, headers: { ...headers, ...range } }, silence.signal);
  const { status, body } = response;
  const refuse = async (why: string) => {
    await body?.cancel();
    return new Refusal(why);
  };
  if (status !== 200 && status !== 206) throw await refuse(`the server answers ${status}`);
  const isRest = status === 206, from = isRest ? had : 0;
  const start = Number(response.headers.get("content-range")?.match(/^bytes (\d+)-/)?.[1]);
  if (isRest && start !== had) throw await refuse("the server sends another range than requested");
  const length = response.headers.get("content-length");
  const isEncoded = response.headers.has("content-encoding");
  if (length !== null && !isEncoded && Number(length) !== size - from) {
    const [has, published] = formatBytePair(from + Number(length), size);
    throw await refuse(`it has ${has}, but ${published} were published`);
  }
  using output = await Deno.open(part, { write: true, create: true });
  await output.truncate(from);
  await output.seek(from, Deno.SeekMode.Start);
  let at = from;
  for await (const chunk of body ?? []) {
    silence.heard();
    if (at + chunk.length > size) {
      await Deno.remove(part);
      throw new Refusal(`it has more than the ${formatBytes(size)} published`);
    }
    for (let from = 0; from < chunk.length;) from += await output.write(chunk.subarray(from));
    at += chunk.length;
    onProgress(at);
  }
  if (at < size) {
    const [came, all] = formatBytePair(at, size);
    throw new Error(`the connection ended after ${came} of ${all}`);
  }
  await output.sync();
}

/** The checksum of a file, in hexadecimal digits. */
async function digest(path: string, kind: Checksum["kind"], bytes: number): Promise<string> {
  const hash = createHash(kind === "SHA-256" ? "sha256" : "sha1");
  if (kind === "git SHA-1") hash.update(`blob ${bytes}\0`);
  using file = await Deno.open(path);
  const buffer = new Uint8Array(1 << 20);
  for (let n: number | null; (n = await file.read(buffer)) !== null;) {
    hash.update(buffer.subarray(0, n));
  }
  return hash.digest("hex");
}
