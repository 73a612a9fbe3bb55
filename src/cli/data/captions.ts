/**
 * Captions of image files: a `metadata.jsonl` in their folder, as data sets of the Hugging Face hub
 * have it, or a text file beside each.
 *
 * @module
 */

import { join, SEPARATOR } from "@std/path";
import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import type { Pictures } from "../../data/pictures.ts";
import { kindOf, readFile } from "../terminal/files.ts";
import { type ImageFiles, nameOf } from "./image_files.ts";

const METADATA = "metadata.jsonl";

const line = z.looseObject({
  file_name: z.string(),
  text: z.union([z.string().transform((text) => [text]), z.array(z.string())]),
});

/**
 * The set with a caption or more of each image.
 *
 * @throws {InputError} If an image has none.
 */
export async function withCaptions<S extends Pictures | ImageFiles>(set: S): Promise<S> {
  if (set.captions) return set;
  if (!("files" in set) || set.place.kind !== "folder") {
    throw new InputError(
      `Cannot take captions of ${set.name}: it has none; they are read of folders, from ` +
        `${METADATA} or a text file beside each image`,
    );
  }
  const { place: { path }, files } = set, metadata = join(path, METADATA);
  const names = files.map((file) => nameOf(file).replaceAll(SEPARATOR, "/"));
  const hasTable = await kindOf(metadata) === "file";
  const captions = hasTable
    ? fromTable(names, await readText(metadata), metadata)
    : await Promise.all(names.map((name) => readBeside(join(path, name))));
  const silent = captions.flatMap((said, i) => said.length ? [] : [names[i]]);
  if (silent.length) {
    throw new InputError(
      `Cannot take captions of ${path}: ${silent[0]} ` +
        (silent.length > 1 ? `and ${silent.length - 1} more have none ` : "has none ") +
        (hasTable ? `in ${METADATA}` : `in a text file beside, and there is no ${METADATA}`),
    );
  }
  return { ...set, captions, others: Math.max(0, set.others - (hasTable ? 1 : files.length)) };
}

const readText = async (path: string) => new TextDecoder().decode(await readFile(path));

/** Lines that say something. */
const spoken = (lines: readonly string[]) => lines.map((l) => l.trim()).filter(Boolean);

/** What is said of files by their names, each line an object of JSON. */
function fromTable(names: readonly string[], text: string, path: string): string[][] {
  const said = new Map<string, string[]>();
  text.split("\n").forEach((row, i) => {
    if (!row.trim()) return;
    const what = `${path}, line ${i + 1}`;
    let json: unknown;
    try {
      json = JSON.parse(row);
    } catch (error) {
      throw new InputError(`Cannot read ${what}: ${(error as Error).message}`);
    }
    const { file_name: name, text } = parseWith(line, json, what);
    said.set(name, [...said.get(name) ?? [], ...spoken(text)]);
  });
  return names.map((name) => said.get(name) ?? []);
}

/** The lines of the text file beside an image. */
async function readBeside(image: string): Promise<string[]> {
  const path = image.replace(/\.\w+$/, ".txt");
  return await kindOf(path) === "file" ? spoken((await readText(path)).split("\n")) : [];
}
