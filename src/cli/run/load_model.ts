/**
 * Loading models: those that come along, files, folders of trainings, checkpoints of diffusers, and the
 * weights of other projects.
 *
 * @module
 */

import { dirname, join, resolve } from "@std/path";
import { parseSchedule, type ScheduleConfig } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { familyNames, findFamily, readFamily } from "../../model/families/mod.ts";
import { assembleModel, holdsNetwork, type Model, readModel } from "../../model/model.ts";
import { parseNetwork } from "../../model/network.ts";
import { fetchModel, type ShippedModel, shippedModels } from "../../model/pretrained.ts";
import { FileBytes, kindOf, readJson, refuseStdin } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { findWeights, isWeightFile, readWeights } from "./weight_files.ts";

/**
 * Loads a model: a pretrained one by name, a file, or a folder of a training or of a diffusers
 * checkpoint. Names take precedence over paths, so that a folder called mnist does not change what
 * `sample` does without flags. Weights are read when they are needed: the file
 * stays open.
 *
 * @throws {InputError} If there is none, or it is damaged.
 */
export async function loadModel(place: string): Promise<Model> {
  refuseStdin(place, "a model");
  if (shippedModels.some((name) => name === place)) return await fetchModel(place as ShippedModel);
  const kind = await kindOf(place);
  if (kind === "nothing") {
    throw new InputError(
      `Cannot load the model ${place}: there is no such file or folder, and no pretrained model of ` +
        `this name (there is: ${shippedModels.join(", ")})`,
    );
  }
  if (kind === "file") return await loadFile(place);
  const own = join(place, "model.safetensors");
  if (await kindOf(own) === "file") return readModel(new FileBytes(own), own);
  return await loadDiffusers(place);
}

/** A model in one file: one of this project, or of another that is told by its tensors. */
async function loadFile(path: string): Promise<Model> {
  const isIndex = path.endsWith(".json") && isWeightFile(path);
  if (isIndex) return await loadDiffusers(dirname(path), path);
  const file = new FileBytes(path), { tensors, metadata } = await readTensorFile(file, path);
  if (holdsNetwork(metadata)) return readModel(file, path);
  const family = findFamily(tensors);
  if (!family && isWeightFile(path)) return await loadDiffusers(dirname(path), path);
  if (!family) {
    throw new InputError(
      `Cannot load ${path}: its header holds no network, and its tensors do not have the names of ` +
        `${familyNames.join(" or ")}; for a diffusers checkpoint give its folder`,
    );
  }
  const folder = dirname(path), own = `${path.replace(/\.\w+$/, "")}.json`;
  const config = await kindOf(own) === "file" ? own : join(folder, "config.json");
  const found = readFamily(family, tensors, path, {
    config: await kindOf(config) === "file" ? await readJson(config) : {},
    schedule: (await findSchedule([folder, join(folder, "scheduler")]))?.schedule,
  });
  for (const note of found.notes) printError(`${path}: ${note}`);
  return found.model;
}

/**
 * A checkpoint of diffusers: all in one folder, or in folders `unet` and `scheduler`.
 *
 * @param weights Its file of weights, or index of such, if it is not to be looked for.
 */
async function loadDiffusers(folder: string, weights?: string): Promise<Model> {
  const isWhole = !weights && await kindOf(join(folder, "unet")) === "folder";
  const unet = isWhole ? join(folder, "unet") : folder;
  const tensors = await readWeights(weights ?? await findWeights(unet, folder));
  return assembleModel(
    parseNetwork(await readJson(join(unet, "config.json"))),
    await readSchedule(folder),
    tensors,
    weights ?? folder,
  );
}

/** The names of files of schedules. */
const SCHEDULE = "scheduler_config.json";

/** The first of these folders that holds a noise schedule, and that. */
async function findSchedule(
  folders: readonly string[],
): Promise<{ folder: string; schedule: ScheduleConfig } | undefined> {
  for (const folder of folders) {
    const path = join(folder, SCHEDULE);
    if (await kindOf(path) !== "file") continue;
    return { folder, schedule: parseSchedule(await readJson(path)) };
  }
}

/**
 * The noise schedule of a folder in the layout of diffusers. Scripts of training write it once, beside
 * the folders of their checkpoints; where it is not the folder's own, that is said.
 */
async function readSchedule(folder: string): Promise<ScheduleConfig> {
  const above = [resolve(folder, ".."), resolve(folder, "..", "..")];
  const own = [join(folder, "scheduler"), folder], beside = above.map((f) => join(f, "scheduler"));
  const found = await findSchedule([...own, ...beside]);
  if (found && beside.includes(found.folder)) {
    printError(`the noise schedule is that of ${join(found.folder, SCHEDULE)}`);
  }
  if (found) return found.schedule;
  const guess = parseSchedule({});
  printError(
    `${folder} has no scheduler/${SCHEDULE}, nor is there one beside it: guessing ` +
      `${guess.numTrainTimesteps} timesteps of ${guess.betaSchedule} betas and a network that ` +
      `predicts ${guess.predictionType}`,
  );
  return guess;
}
