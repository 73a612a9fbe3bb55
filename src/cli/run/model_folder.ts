/**
 * Folders with models in the layout of diffusers: all in one, or with folders `unet` and `scheduler`.
 *
 * @module
 */

import { join, resolve } from "@std/path";
import { parseSchedule, type ScheduleConfig } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { assembleModel, type Model, readNotes } from "../../model/model.ts";
import { parseNetwork } from "../../model/network.ts";
import { FileBytes, kindOf, listFolder, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";

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
    const there = path.startsWith("..") ? resolve(place, path) : join(place, path);
    return await kindOf(there) === "file" ? there : undefined;
  },
});

/** The path of a file in a folder of a model, which has slashes on every system. */
const inFolder = (folder: string, name: string) => folder ? `${folder}/${name}` : name;

/** What files of weights are called in checkpoints of diffusers, those that are preferred first. */
const weightFiles = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];

/** Whether a file of this name belongs to a checkpoint of diffusers. */
export const isDiffusersFile = (name: string): boolean => weightFiles.includes(name);

/**
 * Loads the model of a folder. What says how it is to be read comes first, weights last.
 *
 * @throws {InputError} If there is none, or it is damaged.
 */
export async function loadFolder(folder: ModelFolder): Promise<Model> {
  const { place } = folder, unet = (await folder.list("unet")).length ? "unet" : "";
  const there = await folder.list(unet), found = weightFiles.find((name) => there.includes(name));
  if (!found) {
    throw new InputError(
      `Cannot load ${place}: it holds neither model.safetensors nor ${weightFiles.join(" nor ")}`,
    );
  }
  const config = await folder.find(inFolder(unet, "config.json"));
  if (!config) {
    throw new InputError(`Cannot load ${place}: there is no config.json beside ${found}`);
  }
  const network = parseNetwork(await readJson(config)), noise = await readSchedule(folder);
  const weights = (await folder.find(inFolder(unet, found)))!;
  const { tensors, metadata } = await readTensorFile(new FileBytes(weights), weights);
  // What is beside tensors in files of PyTorch are no texts about them.
  const notes = weights.endsWith(".safetensors") ? readNotes(metadata, weights) : {};
  const model = assembleModel(network, noise.schedule, tensors, place, notes);
  if (noise.note) printError(noise.note);
  return model;
}

/** The names of files of schedules. */
const SCHEDULE = "scheduler_config.json";

/**
 * The noise schedule of a folder in the layout of diffusers. Scripts of training write it once, beside
 * the folders of their checkpoints; where it is not the folder's own, that is said.
 */
async function readSchedule(
  { place, find }: ModelFolder,
): Promise<{ readonly schedule: ScheduleConfig; readonly note?: string }> {
  for (const where of ["scheduler", "", "../scheduler", "../../scheduler"]) {
    const path = await find(inFolder(where, SCHEDULE));
    if (path === undefined) continue;
    const schedule = parseSchedule(await readJson(path));
    return where.startsWith("..")
      ? { schedule, note: `the noise schedule is that of ${path}` }
      : { schedule };
  }
  const guess = parseSchedule({});
  return {
    schedule: guess,
    note: `${place} has no scheduler/${SCHEDULE}, nor is there one beside it: guessing ` +
      `${guess.numTrainTimesteps} timesteps of ${guess.betaSchedule} betas and a network that ` +
      `predicts ${guess.predictionType}`,
  };
}
