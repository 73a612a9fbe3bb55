/**
 * The right to write to a folder, which one process has at a time. It is a lock of the operating
 * system on a file, which ends with its process however that ends: a lock that was left behind holds
 * nobody up.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";

/** The file that is locked. It stays: to remove it would let two processes lock two files. */
export const LOCK_FILE = ".lock";

/** Who holds a lock, for messages. */
interface Holder {
  readonly pid: number;
  readonly since: string;
}

/** A lock that is held until it is disposed of. */
export class FolderLock implements Disposable {
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /**
   * Locks a folder.
   *
   * @throws {InputError} If another process has it, or nothing can be written there.
   */
  static async take(folder: string): Promise<FolderLock> {
    const path = join(folder, LOCK_FILE);
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path, { read: true, write: true, create: true });
    } catch (error) {
      throw new InputError(`Cannot train into ${folder}: ${(error as Error).message}`);
    }
    // Some network file systems have no locks; there nobody is held off.
    if (await file.tryLock(true).catch(() => true)) return new FolderLock(file);
    file.close();
    throw new InputError(
      `Cannot train into ${folder}: ${await describeHolder(path)}; end it first, or give another ` +
        "--out",
    );
  }

  /** Leaves word who holds the lock. */
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
    if (Number.isInteger(pid) && since) return `process ${pid} trains there since ${since}`;
  } catch { /* It has not signed yet, or Windows keeps what is locked from being read. */ }
  return "another process trains there";
}
