/**
 * The files of weights in folders of diffusers: one, or several that an index lists, in one of several
 * formats and variants.
 *
 * @module
 */

import { basename, dirname, join } from "@std/path";
import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import type { StoredTensor } from "../../formats/safetensors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { FileBytes, listFolder, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";

/** What such files are called, perhaps with a variant like `fp16`; of several there is an index. */
const NAME = /^diffusion_pytorch_model(\.[\w-]+)?\.(safetensors|bin)(\.index\.json)?$/;
/** One of several. */
const PART = /-\d+-of-\d+/;

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** Whether a path is a file of weights, or an index of such, as diffusers calls them. */
export const isWeightFile = (path: string): boolean => NAME.test(basename(path));

/**
 * The file of weights in a folder: safetensors are preferred, and what is no variant.
 *
 * @throws {InputError} If there is none, or only several variants.
 */
export async function findWeights(folder: string, place: string): Promise<string> {
  const names = (await listFolder(folder)).filter((name) => NAME.test(name) && !PART.test(name));
  for (const format of ["safetensors", "bin"]) {
    const own = names.filter((name) => name.match(NAME)![2] === format);
    const plain = own.find((name) => !name.match(NAME)![1]);
    if (plain) return join(folder, plain);
    if (own.length > 1) {
      throw new InputError(
        `Cannot load ${place}: it holds several variants; give one: ${own.join(", ")}`,
      );
    }
    if (own.length) {
      printError(`${place}: the weights are those of ${own[0]}`);
      return join(folder, own[0]);
    }
  }
  throw new InputError(
    `Cannot load ${place}: it holds neither model.safetensors nor diffusion_pytorch_model.safetensors ` +
      "nor diffusion_pytorch_model.bin",
  );
}

/**
 * The tensors of a file, or of all that an index lists.
 *
 * @throws {InputError} If one is damaged or missing, or the index is wrong.
 */
export async function readWeights(path: string): Promise<ReadonlyMap<string, StoredTensor>> {
  if (!path.endsWith(".json")) return (await readTensorFile(new FileBytes(path), path)).tensors;
  const what = `index of weights ${path}`, folder = dirname(path);
  const { weight_map: places } = parseWith(indexSchema, await readJson(path), what);
  const tensors = new Map<string, StoredTensor>(), files = new Set(Object.values(places));
  for (const file of files) {
    // What leads out of the folder is no part of it.
    if (!/^[\w.-]+$/.test(file) || file.startsWith(".")) {
      throw new InputError(`Bad ${what}: ${JSON.stringify(file)} is no name of a file`);
    }
    const part = await readTensorFile(new FileBytes(join(folder, file)), join(folder, file));
    for (const [name, tensor] of part.tensors) {
      if (places[name] !== file) {
        throw new InputError(`Bad ${what}: ${name} is in ${file}, but not there by the index`);
      }
      tensors.set(name, tensor);
    }
  }
  const missing = Object.keys(places).find((name) => !tensors.has(name));
  if (missing === undefined) return tensors;
  throw new InputError(`Bad ${what}: ${missing} is not in ${places[missing]}`);
}
