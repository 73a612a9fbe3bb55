/**
 * Folders with models in the layout of diffusers: all in one, or with folders `unet` and `scheduler`.
 *
 * @module
 */

import { basename, join, resolve } from "@std/path";
import { z } from "zod";
import { parseWith } from "../../config.ts";
import { parseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { assembleModel, type Model } from "../../model/model.ts";
import { parseNetwork } from "../../model/network.ts";
import { assembleNetwork } from "../../model/weights.ts";
import { kindOf, listFolder, mayRead, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { FoundAutoencoder } from "./found_autoencoder.ts";
import { FoundTextToImage } from "./found_text_to_image.ts";
import { explainMissing, type Pipeline, readPipeline } from "./pipeline.ts";
import {
  findPiece,
  inFolder,
  type PieceWeights,
  readWeights,
  tellVariant,
} from "./piece_weights.ts";

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

/** What a folder holds. */
export interface FolderParts extends PieceWeights {
  /** What its `model_index.json` says. */
  readonly pipeline: Pipeline | undefined;
}

/** A pipeline with pieces that this program has not. */
export class UnsupportedPipeline extends InputError {
  readonly pipeline: Pipeline;
  /** What is known of those that it has, in words, by their names. */
  readonly pieces: Readonly<Record<string, string>>;

  constructor(
    place: string,
    pipeline: Pipeline,
    why: string,
    pieces: Readonly<Record<string, string>> = {},
  ) {
    super(`Cannot load ${place}: ${why}`);
    [this.pipeline, this.pieces] = [pipeline, pieces];
  }
}

/**
 * Looks at what a folder consists of, without its weights.
 *
 * @param file The file of weights, if one was named.
 * @throws {InputError} If there is no model in it, or it is only a part of what paints, or more, as a
 * {@linkcode FoundTextToImage} is.
 */
export async function readParts(folder: ModelFolder, file?: string): Promise<FolderParts> {
  const { place } = folder;
  const pipeline = file === undefined ? await readPipeline(folder) : undefined;
  const why = pipeline && explainMissing(pipeline);
  if (why) throw new UnsupportedPipeline(place, pipeline, why);
  if (pipeline?.text) {
    throw new FoundTextToImage(place, pipeline.className, `${place}/${pipeline.network!.name}`);
  }
  const where = file === undefined ? await findNetwork(folder, pipeline) : "";
  return { pipeline, ...await findPiece(folder, where, { file }) };
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
    const { tensors, notes } = await readWeights(folder, parts);
    const found = assembleNetwork(network, tensors, folder.place);
    throw new FoundAutoencoder(folder.place, { card: {}, ...notes, ...found }, "diffusers");
  }
  const { schedule, scheduler, note } = await readSchedule(folder, pipeline?.scheduler);
  const { tensors, notes } = await readWeights(folder, parts);
  const model = assembleModel(network, schedule, tensors, folder.place, { ...notes, scheduler });
  if (file === undefined) tellVariant(parts);
  if (where === AVERAGE) printError(`the weights are the moving average, in ${AVERAGE}`);
  if (note) printError(note);
  return model;
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
export async function readSchedule(
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

/** What is known of a file of another project beside it: an object, empty if it is nothing. */
export async function readOriginalConfig(path: string, folder: ModelFolder): Promise<unknown> {
  const own = `${basename(path).replace(/\.\w+$/, "")}.json`;
  const place = await folder.find(own) ?? await folder.find("config.json");
  return place === undefined ? {} : await readJson(place);
}
