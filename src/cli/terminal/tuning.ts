/**
 * The kernel tuning cache: choices of kernels that are kept between runs in the user's cache folder.
 *
 * @module
 */

import { dirname, join } from "@std/path";
import { z } from "zod";
import type { Tuning } from "../../gpu/wgsl/tuner.ts";
import { cacheFolder } from "./environment.ts";

/** The path of the cache; `undefined` if the system names no cache folder. */
export function tuningFile(): string | undefined {
  const folder = cacheFolder();
  return folder && join(folder, "tuning.json");
}

const schema = z.record(z.string(), z.string());

/** The choices in a file; empty if it is missing or damaged. */
export async function readChoices(path: string): Promise<Record<string, string>> {
  try {
    return schema.parse(JSON.parse(await Deno.readTextFile(path)));
  } catch {
    return {};
  }
}

/** Tuning that reads its choices from a file and saves them there. */
export async function keepTuning(path: string): Promise<Tuning> {
  const choices = await readChoices(path);
  return {
    choices: { ...choices },
    onChoice(key, choice) {
      choices[key] = choice;
      try {
        // Whole or not at all, and before the choice is used: who resumes a training wants it again.
        Deno.mkdirSync(dirname(path), { recursive: true });
        Deno.writeTextFileSync(`${path}.new`, JSON.stringify(choices, null, 1) + "\n");
        Deno.renameSync(`${path}.new`, path);
      } catch {
        // A cache that cannot be written is no reason to stop: it is measured again next time.
      }
    },
  };
}
