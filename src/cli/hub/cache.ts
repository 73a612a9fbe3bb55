/**
 * The files of one repository on the disk, as huggingface_hub keeps them, so that either finds what
 * the other fetched: contents in `blobs`, by checksum; commits of branches and tags in `refs`; and in
 * `snapshots`, a folder for each commit with links to contents.
 *
 * @module
 */

import { dirname, join, relative, SEPARATOR } from "@std/path";
import { InputError } from "../../errors.ts";
import { explain, kindOf, linkFile, listFolder, makeFolder } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { isInside } from "./place.ts";

/** What a commit is called. */
export const COMMIT = /^[0-9a-f]{40}$/;

/** A repository in the cache. */
export class RepositoryCache {
  readonly #root: string;
  readonly #name: string;
  readonly #folder: string;

  constructor(root: string, owner: string, name: string) {
    this.#root = root;
    this.#name = `models--${owner}--${name}`;
    this.#folder = join(root, this.#name);
  }

  /** The commit that a revision was when something of it was fetched last. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    const path = join(this.#folder, "refs", revision);
    if (await kindOf(path) !== "file") return undefined;
    const commit = (await Deno.readTextFile(path)).trim();
    return COMMIT.test(commit) ? commit : undefined;
  }

  /** Keeps what commit a revision is. */
  async setCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || await this.commitOf(revision) === commit) return;
    await this.#write(async () => {
      const path = join(this.#folder, "refs", revision), written = `${path}.${Deno.pid}.tmp`;
      await makeFolder(dirname(path));
      // Python takes it as it is, without a line end.
      await Deno.writeTextFile(written, commit);
      await Deno.rename(written, path);
    });
  }

  /** The folder of a commit. */
  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  /** The paths of the files of a commit that are there. */
  async list(commit: string): Promise<string[]> {
    const top = this.snapshot(commit), found: string[] = [];
    const visit = async (folder: string) => {
      for (const name of await listFolder(folder)) {
        const path = join(folder, name), kind = await kindOf(path);
        if (kind === "folder") await visit(path);
        else if (kind === "file") found.push(relative(top, path).replaceAll(SEPARATOR, "/"));
      }
    };
    await visit(top);
    return found;
  }

  /** The path of a file of a commit, if it is there and has so many bytes. */
  async find(commit: string, path: string, bytes?: number): Promise<string | undefined> {
    const there = join(this.snapshot(commit), path);
    if (!isInside(path) || await kindOf(there) !== "file") return undefined;
    return bytes === undefined || (await Deno.stat(there)).size === bytes ? there : undefined;
  }

  /**
   * Gets a file of a commit into the cache, unless another process does so meanwhile.
   *
   * @param etag Its checksum, by which its content is called.
   * @param fetch Writes the content to a path, where a part of it may be already.
   * @throws {InputError} If the cache cannot be written to.
   */
  async add(
    commit: string,
    { path, etag, bytes }: { readonly path: string; readonly etag: string; readonly bytes: number },
    progress: Progress,
    fetch: (part: string) => Promise<void>,
  ): Promise<string> {
    const blob = join(this.#folder, "blobs", etag), part = `${blob}.incomplete`;
    const pointer = join(this.snapshot(commit), path);
    const locks = join(this.#root, ".locks", this.#name);
    using lock = await this.#write(async () => {
      for (const folder of [dirname(blob), dirname(pointer), locks]) await makeFolder(folder);
      return await Deno.open(join(locks, `${etag}.lock`), { write: true, create: true });
    });
    // Some network file systems have no locks; then both fetch, and the checksum decides.
    if (!await lock.tryLock(true).catch(() => true)) {
      progress.say(`another process fetches ${path}: waiting for it`);
      await lock.lock(true);
    }
    // Who held the lock may have come for the same.
    const other = await this.find(commit, path, bytes);
    if (other) return other;
    const isThere = await kindOf(blob) === "file" && (await Deno.stat(blob)).size === bytes;
    if (!isThere) await fetch(part);
    await this.#write(async () => {
      if (!isThere) await Deno.rename(part, blob);
      const written = `${pointer}.${Deno.pid}.tmp`;
      await pointTo(blob, written);
      await Deno.rename(written, pointer);
    });
    return pointer;
  }

  /** Does something that writes to the cache. */
  async #write<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw new InputError(
        `Cannot write to the cache of the hub, ${this.#root}: ${
          explain(error)
        }; HF_HUB_CACHE can ` +
          "name another folder",
      );
    }
  }
}

/** Makes a relative link; where the system has no symbolic ones, a hard one, or a copy. */
async function pointTo(blob: string, pointer: string): Promise<void> {
  try {
    await Deno.symlink(relative(dirname(pointer), blob), pointer, { type: "file" });
  } catch {
    await linkFile(blob, pointer);
  }
}
