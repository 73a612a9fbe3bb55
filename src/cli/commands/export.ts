/**
 * `ddpm export`: models as other programs read them.
 *
 * @module
 */

import { dirname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import type { EncodedFile } from "../../formats/safetensors.ts";
import { encodeDiffusers } from "../../model/diffusers.ts";
import { encodeModel, type Trainable } from "../../model/model.ts";
import type { WeightFileDType } from "../../model/tensors.ts";
import { formatBytes } from "../../units.ts";
import { FoundAutoencoder } from "../run/found_autoencoder.ts";
import { FoundDualEncoder } from "../run/found_dual_encoder.ts";
import { openAnyModel } from "../run/open_model.ts";
import {
  checkFolder,
  kindOf,
  listFolder,
  makeFolder,
  mayReplace,
  temporaryName,
  writeAll,
  writeWhole,
} from "../terminal/files.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { print, Progress } from "../terminal/progress.ts";

const formats = ["diffusers", "safetensors"] as const, dtypes = ["f32", "f16", "bf16"] as const;

/** The flags of `export`. */
export const exportFlags = {
  out: { kind: "text", value: "FOLDER", help: "the folder to make" },
  format: {
    kind: "text",
    value: "NAME",
    choices: formats,
    default: "diffusers",
    help: "a folder for Python's diffusers, or model.safetensors with everything in its header",
  },
  dtype: {
    kind: "text",
    value: "NAME",
    choices: dtypes,
    default: "f32",
    help: "type of the weights",
  },
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function exportCommand(args: readonly string[]): Promise<void> {
  const { flags, rest } = parseFlags(args, exportFlags), { out } = flags;
  if (rest.length !== 1) {
    throw new InputError(
      rest.length
        ? `export takes one model, not ${rest.join(" and ")}`
        : "export needs a model: export MODEL --out FOLDER",
    );
  }
  if (out === undefined) throw new InputError("export needs --out: the folder to make");
  await checkNew(out);
  const [place] = rest, model = await openTrainable(place);
  const { format = "diffusers", dtype = "f32" } = flags, type = dtype.toUpperCase();
  const { files, notes } = format === "diffusers"
    ? encodeDiffusers(model, type as WeightFileDType)
    : {
      files: new Map([["model.safetensors", encodeModel(model, type as WeightFileDType)]]),
      notes: [],
    };
  using progress = new Progress();
  const bytes = await writeFolder(out, files, progress);
  for (const note of notes) progress.say(note);
  progress.clear();
  print(`${out}: ${model.network.className} as ${dtype}, ${formatBytes(bytes)}`);
}

/** A model, an autoencoder or a dual encoder. */
async function openTrainable(place: string): Promise<Trainable> {
  try {
    return await openAnyModel(place);
  } catch (error) {
    if (error instanceof FoundAutoencoder) return error.autoencoder;
    if (error instanceof FoundDualEncoder) return error.model;
    throw error;
  }
}

/** @throws {InputError} If the folder holds something, or cannot be made. */
async function checkNew(folder: string): Promise<void> {
  if (!mayReplace(folder)) {
    throw new InputError(
      `Cannot write ${folder}: it has another name until it is whole; give Deno --allow-read and ` +
        `--allow-write for ${dirname(folder)}`,
    );
  }
  const kind = await kindOf(folder);
  if (kind === "file") throw new InputError(`Cannot write ${folder}: it is a file; give a folder`);
  if ((await listFolder(folder)).length) {
    throw new InputError(`Cannot write to ${folder}: it is not empty; give another --out`);
  }
  await checkFolder(folder);
}

/** Writes a folder under another name and renames it once it is whole; returns the size of weights. */
async function writeFolder(
  folder: string,
  files: ReadonlyMap<string, EncodedFile | Readonly<Record<string, unknown>>>,
  progress: Progress,
): Promise<number> {
  const written = temporaryName(folder);
  let all = 0;
  try {
    for (const [name, content] of files) {
      const path = join(written, name);
      await makeFolder(dirname(path));
      if (!isEncoded(content)) {
        await writeWhole(path, `${JSON.stringify(content, null, 2)}\n`);
        continue;
      }
      let done = 0;
      await writeWhole(path, async (file) => {
        for (const part of content.parts) {
          await writeAll(file, part);
          done += part.length;
          progress.update(
            `writing ${name}: ${formatBytes(done)} of ${formatBytes(content.length)}`,
          );
        }
      });
      all += content.length;
    }
    // An empty folder makes room.
    if (await kindOf(folder) === "folder") await Deno.remove(folder);
    await Deno.rename(written, folder);
    return all;
  } catch (error) {
    await Deno.remove(written, { recursive: true }).catch(() => {});
    const { cause } = error as Error;
    if (cause instanceof RangeError || cause instanceof InputError) {
      throw new InputError(
        cause instanceof RangeError ? `${cause.message}; --dtype f32 keeps them` : cause.message,
      );
    }
    throw error;
  }
}

const isEncoded = (
  content: EncodedFile | Readonly<Record<string, unknown>>,
): content is EncodedFile => Symbol.iterator in Object(content.parts);
