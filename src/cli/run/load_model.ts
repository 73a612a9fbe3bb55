/**
 * Loading models: those that come along, those of the hub, files, and folders of trainings or of
 * diffusers.
 *
 * @module
 */

import { basename, dirname } from "@std/path";
import { InputError } from "../../errors.ts";
import { type Model, readModel } from "../../model/model.ts";
import { fetchModel, type ShippedModel, shippedModels } from "../../model/pretrained.ts";
import { openHub } from "../hub/hub_folder.ts";
import { isHubPlace } from "../hub/place.ts";
import { FileBytes, kindOf, refuseStdin } from "../terminal/files.ts";
import { loadFolder, localFolder, type ModelFolder } from "./model_folder.ts";
import { parseWeightFile } from "./weight_files.ts";

/** A folder, and the file that was named in it. */
interface Opened {
  readonly folder: ModelFolder;
  readonly file?: string;
}

/**
 * Loads a model: a pretrained one by name, one of the hub, a file, or a folder of a training or of a
 * diffusers checkpoint. Names take precedence over paths, so that a folder called mnist does not
 * change what `sample` does without flags. Weights are read when they are needed: the file stays open.
 *
 * @throws {InputError} If there is none, or it is damaged.
 */
export async function loadModel(place: string): Promise<Model> {
  refuseStdin(place, "a model");
  if (shippedModels.some((name) => name === place)) return await fetchModel(place as ShippedModel);
  const { folder, file } = isHubPlace(place) ? await openHub(place) : await openPath(place);
  if (file !== undefined && parseWeightFile(file)) return await loadFolder(folder, file);
  const own = await folder.find(file ?? "model.safetensors");
  return own ? readModel(new FileBytes(own), own) : await loadFolder(folder);
}

async function openPath(place: string): Promise<Opened> {
  const kind = await kindOf(place);
  if (kind === "file") return { folder: localFolder(dirname(place)), file: basename(place) };
  if (kind === "folder") return { folder: localFolder(place) };
  throw new InputError(
    `Cannot load the model ${place}: there is no such file or folder, and no pretrained model of ` +
      `this name (there is: ${shippedModels.join(", ")}); models of the hub are hf:owner/name`,
  );
}
