/**
 * Models in one file: those of this project, and those of other projects, which are told by the names of
 * their tensors.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import {
  familyNames,
  findAutoencoderFamily,
  findFamily,
  readAutoencoderFamily,
  readFamily,
} from "../../model/families/mod.ts";
import { findPipelineFamily } from "../../model/families/pipelines.ts";
import { holdsNetwork, isDualEncoder, type Model, trainableFrom } from "../../model/model.ts";
import { FileBytes } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { FoundAutoencoder } from "./found_autoencoder.ts";
import { FoundDualEncoder } from "./found_dual_encoder.ts";
import { FoundTextToImage } from "./found_text_to_image.ts";
import { findSchedule, type ModelFolder, readOriginalConfig } from "./model_folder.ts";
import { readPipelineFile } from "./pipeline_file.ts";

/**
 * Loads a model in one file. Of what the tensors of other projects do not tell, `NAME.json` or
 * `config.json` beside it may tell the arguments of the original, and `scheduler_config.json` the noise.
 *
 * @param folder The folder that it is in.
 * @throws {InputError} If it is damaged, or of none of the projects, or a
 * {@linkcode FoundAutoencoder}, {@linkcode FoundDualEncoder} or {@linkcode FoundTextToImage}.
 */
export async function loadFile(path: string, folder: ModelFolder): Promise<Model> {
  const file = await readTensorFile(new FileBytes(path), path), { tensors, metadata } = file;
  if (holdsNetwork(metadata)) {
    const model = trainableFrom(file, path);
    if ("schedule" in model) return model;
    throw isDualEncoder(model)
      ? new FoundDualEncoder(path, model)
      : new FoundAutoencoder(path, model, "ddpm");
  }
  const pipeline = findPipelineFamily(tensors);
  if (pipeline) {
    await readPipelineFile(pipeline, tensors, path, folder);
    throw new FoundTextToImage(path, `file with the names of ${pipeline.name}`);
  }
  const family = findFamily(tensors), other = family ? undefined : findAutoencoderFamily(tensors);
  if (!family && !other) {
    throw new InputError(
      `Cannot load ${path}: its header holds no network, and its tensors do not have the names of ` +
        `${familyNames.join(" or ")}; for a diffusers checkpoint give its folder`,
    );
  }
  const config = await readOriginalConfig(path, folder);
  if (other) {
    const { autoencoder } = readAutoencoderFamily(other, tensors, path, config);
    throw new FoundAutoencoder(path, { ...autoencoder, card: {} }, other.name);
  }
  const found = readFamily(family!, tensors, path, {
    config,
    schedule: (await findSchedule(folder, ["", "scheduler"]))?.schedule,
  });
  for (const note of found.notes) printError(`${path}: ${note}`);
  return found.model;
}
