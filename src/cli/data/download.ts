/**
 * Resumable downloads, verified by SHA-256.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join } from "@std/path";
import { explain, followLink, kindOf, makeFolder } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { formatBytePair, formatBytes } from "../../units.ts";

/** A published file. */
export interface Published {
  /** Its URL without the file name. */
  readonly base: string;
  readonly file: string;
  readonly bytes: number;
  /** Its SHA-256, in hexadecimal digits. */
  readonly sha256: string;
}

/** Attempts without progress before giving up. */
const TRIES = 4;
/** A connection without data for this long is aborted. */
const SILENCE_MS = 60_000;

/**
 * Downloads a published file to a folder unless it is there already; returns its path.
 *
 * @throws {Error} If it cannot be downloaded, or its checksum does not match.
 */
export async function obtain(
  file: Published,
  folder: string,
  progress: Progress,
  retryMs = 1000,
): Promise<string> {
  const path = followLink(join(folder, file.file)), part = `${path}.part`;
  if (await kindOf(path) === "file") {
    // It was checked when it came; a look at its size tells whether the disk filled up since.
    if ((await Deno.stat(path)).size === file.bytes) return path;
    await Deno.remove(path);
  }
  await makeFolder(dirname(path));
  const url = `${file.base}${file.file}`, size = formatBytes(file.bytes);
  let had = await sizeOf(part);
  if (had > file.bytes) await Deno.remove(part), had = 0;
  progress.say(
    `downloading ${url}, ${size}${had ? ` (${formatBytes(had)} done)` : ""}, to ${folder}`,
  );
  for (let failures = 0; had < file.bytes;) {
    const before = had;
    try {
      await fetchRest(url, part, had, file.bytes, (now) => {
        progress.update(`downloading ${file.file}: ${formatBytes(now)} of ${size}`);
      });
    } catch (error) {
      if (error instanceof Refusal) throw error;
      had = await sizeOf(part);
      failures = had > before ? 1 : failures + 1;
      if (failures >= TRIES) {
        throw new Error(
          `Cannot download ${url}: ${explain(error)}; the same command resumes after ` +
            formatBytes(had),
          { cause: error },
        );
      }
      await new Promise((done) => setTimeout(done, retryMs * 2 ** failures));
    }
    had = await sizeOf(part);
  }
  progress.update(`checking ${file.file}`);
  const sha256 = await digest(part);
  if (sha256 !== file.sha256) {
    await Deno.remove(part);
    throw new Refusal(
      `Cannot use ${url}: its SHA-256 is ${sha256}, but ${file.sha256} was published; it was ` +
        "deleted, the same command tries again",
    );
  }
  await Deno.rename(part, path);
  progress.clear();
  return path;
}

/** An error that retrying does not fix. */
class Refusal extends Error {}

const sizeOf = async (path: string) =>
  await kindOf(path) === "file" ? (await Deno.stat(path)).size : 0;

/** Fetches the rest of a file; servers without range requests send all of it. */
async function fetchRest(
  url: string,
  part: string,
  had: number,
  size: number,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const silence = new AbortController();
  const stop = () => silence.abort(new Error(`no data for ${SILENCE_MS / 1000} s`));
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const headers = had ? { range: `bytes=${had}-` } : {};
    const response = await fetch(url, { headers, signal: silence.signal });
    const { status, body } = response;
    const refuse = async (why: string) => {
      await body?.cancel();
      return new Refusal(`Cannot download ${url}: ${why}`);
    };
    if (status >= 500 || status === 429) {
      await body?.cancel();
      throw new Error(`the server answers ${status}`);
    }
    if (status !== 200 && status !== 206) throw await refuse(`the server answers ${status}`);
    const isRest = status === 206, from = isRest ? had : 0;
    const start = Number(response.headers.get("content-range")?.match(/^bytes (\d+)-/)?.[1]);
    if (isRest && start !== had) {
      throw await refuse("the server sends another range than requested");
    }
    const length = response.headers.get("content-length");
    const isEncoded = response.headers.has("content-encoding");
    if (length !== null && !isEncoded && Number(length) !== size - from) {
      const [has, published] = formatBytePair(from + Number(length), size);
      throw await refuse(`it has ${has}, but ${published} were published`);
    }
    using file = await Deno.open(part, { write: true, create: true });
    await file.truncate(from);
    await file.seek(from, Deno.SeekMode.Start);
    let at = from;
    for await (const chunk of body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      if (at + chunk.length > size) {
        await Deno.remove(part);
        throw new Refusal(
          `Cannot download ${url}: it has more than the ${formatBytes(size)} published`,
        );
      }
      for (let from = 0; from < chunk.length;) from += await file.write(chunk.subarray(from));
      at += chunk.length;
      onProgress(at);
    }
    if (at < size) {
      const [came, all] = formatBytePair(at, size);
      throw new Error(`the connection ended after ${came} of ${all}`);
    }
    await file.sync();
  } finally {
    clearTimeout(timer);
  }
}

/** The SHA-256 of a file, in hexadecimal digits. */
async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  const buffer = new Uint8Array(1 << 20);
  for (let n: number | null; (n = await file.read(buffer)) !== null;) {
    hash.update(buffer.subarray(0, n));
  }
  return hash.digest("hex");
}
