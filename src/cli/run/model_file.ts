/**
 * Models in one file: those of this project, and those of other projects, which are told by the names of
 * their tensors.
 *
 * @module
 */

import { basename } from "@std/path";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import {
  familyNames,
  findAutoencoderFamily,
  findFamily,
  readAutoencoderFamily,
  readFamily,
} from "../../model/families/mod.ts";
import { holdsNetwork, type Model, modelFrom } from "../../model/model.ts";
import { FileBytes, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { FoundAutoencoder } from "./found_autoencoder.ts";
import { findSchedule, type ModelFolder } from "./model_folder.ts";

/**
 * Loads a model in one file. Of what the tensors of other projects do not tell, `NAME.json` or
 * `config.json` beside it may tell the arguments of the original, and `scheduler_config.json` the noise.
 *
 * @param folder The folder that it is in.
 * @throws {InputError} If it is damaged, or of none of the projects, or a
 * {@linkcode FoundAutoencoder}.
 */
export async function loadFile(path: string, folder: ModelFolder): Promise<Model> {
  const file = await readTensorFile(new FileBytes(path), path), { tensors, metadata } = file;
  if (holdsNetwork(metadata)) return modelFrom(file, path);
  const family = findFamily(tensors), other = family ? undefined : findAutoencoderFamily(tensors);
  if (!family && !other) {
    throw new InputError(
      `Cannot load ${path}: its header holds no network, and its tensors do not have the names of ` +
        `${familyNames.join(" or ")}; for a diffusers checkpoint give its folder`,
    );
  }
  const own = `${basename(path).replace(/\.\w+$/, "")}.json`;
  const place = await folder.find(own) ?? await folder.find("config.json");
  const config = place === undefined ? {} : await readJson(place);
  if (other) {
    const { autoencoder } = readAutoencoderFamily(other, tensors, path, config);
    throw new FoundAutoencoder(path, autoencoder, other.name);
  }
  const found = readFamily(family!, tensors, path, {
    config,
    schedule: (await findSchedule(folder, ["", "scheduler"]))?.schedule,
  });
  for (const note of found.notes) printError(`${path}: ${note}`);
  return found.model;
}
