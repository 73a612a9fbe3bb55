/**
 * Folders with models in the layout of diffusers: all in one, or with folders `unet` and `scheduler`.
 *
 * @module
 */

import { join, resolve } from "@std/path";
import { z } from "zod";
import { parseWith } from "../../config.ts";
import { parseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import type { StoredTensor } from "../../formats/safetensors.ts";
import { joinShards, readShardIndex, type ShardIndex } from "../../formats/shards.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { assembleModel, type Model, readNotes } from "../../model/model.ts";
import { parseNetwork } from "../../model/network.ts";
import { assembleNetwork } from "../../model/weights.ts";
import { FileBytes, kindOf, listFolder, mayRead, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { FoundAutoencoder } from "./found_autoencoder.ts";
import { explainMissing, type Pipeline, readPipeline } from "./pipeline.ts";
import { chooseWeights, parseWeightFile, STEM, type WeightFile } from "./weight_files.ts";

/** A folder on the disk, or one whose files come when they are asked for. */
export interface ModelFolder {
  /** What it is called, for messages. */
  readonly place: string;
  /** The names of what is in a folder of it; none if there is no such folder. */
  list(folder: string): Promise<readonly string[]>;
  /** Where a file is on the disk; `undefined` if there is none. Its path may begin with `..`. */
  find(path: string): Promise<string | undefined>;
}

/** A folder on the disk. */
export const localFolder = (place: string): ModelFolder => ({
  place,
  list: (folder) => listFolder(join(place, folder)),
  async find(path) {
    const isAbove = path.startsWith("..") && mayRead(".");
    const there = isAbove ? resolve(place, path) : join(place, path);
    // Beside a file that Deno may read, there is nothing that it may not.
    return mayRead(there) && await kindOf(there) === "file" ? there : undefined;
  },
});

/** The path of a file in a folder of a model, which has slashes on every system. */
const inFolder = (folder: string, name: string) => folder ? `${folder}/${name}` : name;

/** What a folder holds. */
export interface FolderParts {
  /** What its `model_index.json` says. */
  readonly pipeline: Pipeline | undefined;
  /** The folder in it that the network is in; "" for itself. */
  readonly where: string;
  readonly weights: WeightFile;
  /** The file that tells which tensor is in which of several files, and what it says. */
  readonly index?: { readonly path: string; readonly shards: ShardIndex };
}

/** A pipeline with pieces that this program has not. */
export class UnsupportedPipeline extends InputError {
  readonly pipeline: Pipeline;

  constructor(place: string, pipeline: Pipeline, why: string) {
    super(`Cannot load ${place}: ${why}`);
    this.pipeline = pipeline;
  }
}

/**
 * Looks at what a folder consists of, without its weights.
 *
 * @param file The file of weights, if one was named.
 * @throws {InputError} If there is no model in it, or it is only a part of what paints.
 */
export async function readParts(folder: ModelFolder, file?: string): Promise<FolderParts> {
  const { place } = folder, bad = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  const pipeline = file === undefined ? await readPipeline(folder) : undefined;
  const why = pipeline && explainMissing(pipeline);
  if (why) throw new UnsupportedPipeline(place, pipeline, why);
  const where = file === undefined ? await findNetwork(folder, pipeline) : "";
  const there = await folder.list(where);
  const weights = file === undefined ? chooseWeights(there) : parseWeightFile(file);
  if (!weights) {
    const names = ["safetensors", "bin"].map((format) => `${STEM}.${format}`).join(" nor ");
    throw bad(`it holds neither model.safetensors nor ${names}`);
  }
  if (weights.kind === "shard") throw bad(`${file} is one of several files; give their folder`);
  if (weights.kind === "whole") return { pipeline, where, weights };
  const path = (await folder.find(inFolder(where, weights.name)))!;
  const shards = readShardIndex(await readJson(path), path);
  const lost = [...shards.keys()].filter((name) => !there.includes(name));
  if (!lost.length) return { pipeline, where, weights, index: { path, shards } };
  throw bad(`of the ${shards.size} files of its weights there is no ${lost.join(", ")}`);
}

/** Where the files of weights are on the disk, by their names. */
export async function findWeights(
  folder: ModelFolder,
  { where, weights, index }: FolderParts,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of index ? index.shards.keys() : [weights.name]) {
    const path = await folder.find(inFolder(where, name));
    if (path !== undefined) found.set(name, path);
  }
  return found;
}

/**
 * Loads the model of a folder. What says how it is to be read comes first, weights last.
 *
 * @param file The file of weights, if one was named.
 * @throws {InputError} If there is none, it is damaged, or it is only a part of what paints, as a
 * {@linkcode FoundAutoencoder} is.
 */
export async function loadFolder(folder: ModelFolder, file?: string): Promise<Model> {
  const parts = await readParts(folder, file), { pipeline, where, weights } = parts;
  const config = await folder.find(inFolder(where, "config.json"));
  if (!config) {
    throw new InputError(
      `Cannot load ${folder.place}: there is no config.json beside ${weights.name}`,
    );
  }
  const network = parseNetwork(await readJson(config));
  if (network.kind === "autoencoder") {
    const { tensors } = await readWeights(folder, parts);
    const found = assembleNetwork(network, tensors, folder.place);
    throw new FoundAutoencoder(folder.place, found, "diffusers");
  }
  const { schedule, scheduler, note } = await readSchedule(folder, pipeline?.scheduler);
  const { tensors, notes } = await readWeights(folder, parts);
  const model = assembleModel(network, schedule, tensors, folder.place, { ...notes, scheduler });
  if (weights.variant && file === undefined) {
    printError(`the weights are the variant ${weights.variant}: ${inFolder(where, weights.name)}`);
  }
  if (where === AVERAGE) printError(`the weights are the moving average, in ${AVERAGE}`);
  if (note) printError(note);
  return model;
}

/** The tensors of a file of weights, or of all that its index names, and what it says beside them. */
async function readWeights(folder: ModelFolder, parts: FolderParts) {
  const shards = new Map<string, ReadonlyMap<string, StoredTensor>>();
  for (const [name, path] of await findWeights(folder, parts)) {
    const { tensors, metadata } = await readTensorFile(new FileBytes(path), path);
    if (!parts.index) {
      // What is beside tensors in files of PyTorch are no texts about them.
      const isOurs = parts.weights.format === "safetensors";
      return { tensors, notes: isOurs ? readNotes(metadata, path) : {} };
    }
    shards.set(name, tensors);
  }
  const { shards: index, path } = parts.index!;
  return { tensors: joinShards(index, shards, path), notes: {} };
}

/** Where scripts of training put the moving average of weights, beside the weights. */
export const AVERAGE = "unet_ema";

/** The folder that the network is in. */
async function findNetwork(folder: ModelFolder, pipeline: Pipeline | undefined): Promise<string> {
  const { network } = pipeline ?? {};
  for (const name of network ? [network.name] : [AVERAGE, "unet"]) {
    if ((await folder.list(name)).length) return name;
  }
  // Early pipelines have all pieces in one folder.
  return "";
}

const anyFields = z.record(z.string(), z.unknown());

/** The names of files of schedules. */
const SCHEDULE = "scheduler_config.json";

/** The first of some folders within a folder that holds a noise schedule, and that. */
export async function findSchedule(
  { find }: ModelFolder,
  folders: readonly string[],
  className?: string,
): Promise<Pick<Model, "schedule" | "scheduler"> & { readonly path: string } | undefined> {
  for (const where of folders) {
    const path = await find(inFolder(where, SCHEDULE));
    if (path === undefined) continue;
    const json = parseWith(anyFields, await readJson(path), `noise schedule ${path}`);
    const scheduler = { ...json, ...(className ? { _class_name: className } : {}) };
    return { scheduler, schedule: parseSchedule(scheduler), path };
  }
}

/**
 * The noise schedule of a folder in the layout of diffusers. Scripts of training write it once, beside
 * the folders of their checkpoints; where it is not the folder's own, that is said.
 */
async function readSchedule(
  folder: ModelFolder,
  className?: string,
): Promise<Pick<Model, "schedule" | "scheduler"> & { readonly note?: string }> {
  const own = await findSchedule(folder, ["scheduler", ""], className);
  if (own) return own;
  const other = await findSchedule(folder, ["../scheduler", "../../scheduler"], className);
  if (other) return { ...other, note: `the noise schedule is that of ${other.path}` };
  const guess = parseSchedule({});
  return {
    schedule: guess,
    note: `${folder.place} has no scheduler/${SCHEDULE}, nor is there one beside it: guessing ` +
      `${guess.numTrainTimesteps} timesteps of ${guess.betaSchedule} betas and a network that ` +
      `predicts ${guess.predictionType}`,
  };
}
