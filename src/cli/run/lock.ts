/**
 * A lock on the folder of a training, so that only one process writes to it. It is a file lock of the
 * operating system, which is released when its process ends in whatever way: there are no stale locks.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";

/** The locked file. It is never removed: two processes could then lock two different files. */
export const LOCK_FILE = ".lock";

/** The process that holds a lock, for messages. */
interface Holder {
  readonly pid: number;
  readonly since: string;
}

/** A lock, held until it is disposed of. */
export class FolderLock implements Disposable {
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /**
   * Locks a folder.
   *
   * @throws {InputError} If another process holds it, or the folder is not writable.
   */
  static async take(folder: string): Promise<FolderLock> {
    const path = join(folder, LOCK_FILE);
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path, { read: true, write: true, create: true });
    } catch (error) {
      throw new InputError(`Cannot train into ${folder}: ${(error as Error).message}`);
    }
    // Some network file systems have no locks; training works there all the same.
    if (await file.tryLock(true).catch(() => true)) return new FolderLock(file);
    file.close();
    throw new InputError(
      `Cannot train into ${folder}: ${await describeHolder(path)}; end it first, or give another ` +
        "--out",
    );
  }

  /** Records which process holds the lock. */
  async sign(): Promise<void> {
    const holder: Holder = { pid: Deno.pid, since: new Date().toISOString() };
    const text = new TextEncoder().encode(JSON.stringify(holder) + "\n");
    await this.#file.seek(0, Deno.SeekMode.Start);
    await this.#file.truncate();
    await this.#file.write(text);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

async function describeHolder(path: string): Promise<string> {
  try {
    const { pid, since }: Holder = JSON.parse(await Deno.readTextFile(path));
    if (Number.isInteger(pid) && since) {
      return `process ${pid} has been training there since ${since}`;
    }
  } catch { /* Not signed yet, or a locked file cannot be read, as on Windows. */ }
  return "another process is training there";
}
