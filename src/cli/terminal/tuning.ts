/**
 * Choices of kernels, which the program keeps from run to run in the user's folder for caches.
 *
 * @module
 */

import { dirname, join } from "@std/path";
import { z } from "zod";
import type { Tuning } from "../../gpu/wgsl/tuner.ts";
import { cacheFolder } from "./environment.ts";

/** Where they are kept; `undefined` if the system does not say where caches belong. */
export function tuningFile(): string | undefined {
  const folder = cacheFolder();
  return folder && join(folder, "tuning.json");
}

const schema = z.record(z.string(), z.string());

/** The choices in a file; none if it is missing or damaged. */
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

/** Tuning with choices that are read from a file and kept there, beside those of other processes. */
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
  Deno.mkdirSync(dirname(path), { recursive: true });
  // Closing it ends the lock; the file stays, or two processes could lock two files.
  using lock = Deno.openSync(`${path}.lock`, { read: true, write: true, create: true });
  try {
    lock.lockSync(true);
  } catch {
    // Some network file systems have no locks; there nobody is held off.
  }
  const choices = { ...parseChoices(readText(path)), [key]: choice };
  Deno.writeTextFileSync(`${path}.new`, JSON.stringify(choices, null, 1) + "\n");
  Deno.renameSync(`${path}.new`, path);
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
