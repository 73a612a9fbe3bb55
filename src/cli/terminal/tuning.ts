/**
 * The kernel tuning cache: choices of kernels that are kept between runs in the user's cache folder.
 *
 * @module
 */

import { dirname, join } from "@std/path";
import { z } from "zod";
import type { Tuning } from "../../gpu/wgsl/tuner.ts";
import { cacheFolder } from "./environment.ts";
import { followLink } from "./files.ts";

/** The path of the cache; `undefined` if the system names no cache folder. */
export function tuningFile(): string | undefined {
  const folder = cacheFolder();
  return folder && join(folder, "tuning.json");
}

const schema = z.record(z.string(), z.string());

/** The choices in a file; empty if it is missing or damaged. */
export async function readChoices(path: string): Promise<Record<string, string>> {
  return parseChoices(await Deno.readTextFile(path).catch(() => ""));
}

function parseChoices(text: string): Record<string, string> {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return {};
  }
}

/** Tuning that reads its choices from a file and saves them there, beside those of other processes. */
export async function keepTuning(path: string): Promise<Tuning> {
  return {
    choices: await readChoices(path),
    onChoice(key, choice) {
      try {
        // Before the choice is used: who resumes a training wants it again.
        addChoice(path, key, choice);
      } catch {
        // A cache that cannot be written is no reason to stop: it is measured again next time.
      }
    },
  };
}

/** Adds a choice to a file, which is replaced as a whole while nobody else does so. */
function addChoice(path: string, key: string, choice: string): void {
  const target = followLink(path);
  Deno.mkdirSync(dirname(target), { recursive: true });
  // Closing it ends the lock; the file stays, or two processes could lock two files.
  using lock = Deno.openSync(`${target}.lock`, { read: true, write: true, create: true });
  try {
    lock.lockSync(true);
  } catch {
    // Some network file systems have no locks; there nobody is held off.
  }
  const choices = { ...parseChoices(readText(target)), [key]: choice };
  Deno.writeTextFileSync(`${target}.new`, JSON.stringify(choices, null, 1) + "\n");
  Deno.renameSync(`${target}.new`, target);
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
