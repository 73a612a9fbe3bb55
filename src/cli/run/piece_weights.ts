/**
 * The weights of a network in a folder: which files they are in, and their tensors.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { StoredTensor } from "../../formats/safetensors.ts";
import { joinShards, readShardIndex, type ShardIndex } from "../../formats/shards.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { readNotes } from "../../model/model.ts";
import { FileBytes, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import type { ModelFolder } from "./model_folder.ts";
import { chooseWeights, parseWeightFile, STEM, type WeightFile } from "./weight_files.ts";

/** The path of a file in a folder of a model, which has slashes on every system. */
export const inFolder = (folder: string, name: string): string =>
  folder ? `${folder}/${name}` : name;

/** Where the weights of a network are. */
export interface PieceWeights {
  /** The folder that the network is in; "" for the model's own. */
  readonly where: string;
  readonly weights: WeightFile;
  /** The file that tells which tensor is in which of several files, and what it says. */
  readonly index?: { readonly path: string; readonly shards: ShardIndex };
}

/**
 * Finds the weights of a network.
 *
 * @param options The file, if one was named, and what files are called.
 * @throws {InputError} If there are none, or not all of them.
 */
export async function findPiece(
  folder: ModelFolder,
  where: string,
  { file, stem = STEM }: { readonly file?: string | undefined; readonly stem?: string } = {},
): Promise<PieceWeights> {
  const { place } = folder, bad = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  const there = await folder.list(where);
  const weights = file === undefined ? chooseWeights(there, stem) : parseWeightFile(file);
  if (!weights && stem !== STEM) {
    throw bad("it holds neither model.safetensors nor pytorch_model.bin");
  }
  if (!weights) {
    const names = ["safetensors", "bin"].map((format) => `${STEM}.${format}`).join(" nor ");
    throw bad(`it holds neither model.safetensors nor ${names}`);
  }
  if (weights.kind === "shard") throw bad(`${file} is one of several files; give their folder`);
  if (weights.kind === "whole") return { where, weights };
  const path = (await folder.find(inFolder(where, weights.name)))!;
  const shards = readShardIndex(await readJson(path), path);
  const lost = [...shards.keys()].filter((name) => !there.includes(name));
  if (!lost.length) return { where, weights, index: { path, shards } };
  throw bad(`of the ${shards.size} files of its weights there is no ${lost.join(", ")}`);
}

/** Where the files of weights are on the disk, by their names. */
export async function findWeights(
  folder: ModelFolder,
  { where, weights, index }: PieceWeights,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of index ? index.shards.keys() : [weights.name]) {
    const path = await folder.find(inFolder(where, name));
    if (path !== undefined) found.set(name, path);
  }
  return found;
}

/** The tensors of a file of weights, or of all that its index names, and what it says beside them. */
export async function readWeights(folder: ModelFolder, piece: PieceWeights) {
  const shards = new Map<string, ReadonlyMap<string, StoredTensor>>();
  for (const [name, path] of await findWeights(folder, piece)) {
    const { tensors, metadata } = await readTensorFile(new FileBytes(path), path);
    if (!piece.index) {
      // What is beside tensors in files of PyTorch are no texts about them.
      const isOurs = piece.weights.format === "safetensors";
      return { tensors, notes: isOurs ? readNotes(metadata, path) : {} };
    }
    shards.set(name, tensors);
  }
  const { shards: index, path } = piece.index!;
  return { tensors: joinShards(index, shards, path), notes: {} };
}

/** Says which variant of the weights was taken, if it is one. */
export function tellVariant({ where, weights: { variant, name } }: PieceWeights): void {
  if (variant) printError(`the weights are the variant ${variant}: ${inFolder(where, name)}`);
}
