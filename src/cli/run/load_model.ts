/**
 * Loading models: those that come along, those of the hub, files, also of other projects, and folders
 * of trainings or of diffusers.
 *
 * @module
 */

import { basename, dirname } from "@std/path";
import { InputError } from "../../errors.ts";
import type { Model } from "../../model/model.ts";
import { fetchModel } from "../../model/pretrained.ts";
import { type ShippedModel, shippedModels } from "../../model/shipped.ts";
import { openHub } from "../hub/hub_folder.ts";
import { isHubPlace } from "../hub/place.ts";
import { kindOf, refuseStdin } from "../terminal/files.ts";
import { loadFile } from "./model_file.ts";
import { loadFolder, localFolder, type ModelFolder } from "./model_folder.ts";
import { parseWeightFile } from "./weight_files.ts";

/** Where a model is: among those that come along, in a file, or in a folder of diffusers. */
export type Located =
  | { readonly kind: "shipped"; readonly name: ShippedModel }
  | { readonly kind: "file"; readonly path: string; readonly folder: ModelFolder }
  | { readonly kind: "folder"; readonly folder: ModelFolder; readonly file?: string | undefined };

/**
 * Finds a model. Names take precedence over paths, so that a folder called mnist does not change what
 * `sample` does without flags.
 *
 * @throws {InputError} If there is none.
 */
export async function locate(place: string): Promise<Located> {
  refuseStdin(place, "a model");
  const name = shippedModels.find((name) => name === place);
  if (name) return { kind: "shipped", name };
  const { folder, file } = isHubPlace(place) ? await openHub(place) : await openPath(place);
  const isWeights = file !== undefined && parseWeightFile(file);
  const path = isWeights ? undefined : await folder.find(file ?? "model.safetensors");
  return path ? { kind: "file", path, folder } : { kind: "folder", folder, file };
}

async function openPath(
  place: string,
): Promise<{ readonly folder: ModelFolder; readonly file?: string }> {
  const kind = await kindOf(place);
  if (kind === "file") return { folder: localFolder(dirname(place)), file: basename(place) };
  if (kind === "folder") return { folder: localFolder(place) };
  throw new InputError(
    `Cannot load the model ${place}: there is no such file or folder, and no pretrained model of ` +
      `this name (there is: ${shippedModels.join(", ")}); models of the hub are hf:owner/name`,
  );
}

/**
 * Loads a model: a pretrained one by name, one of the hub, a file, or a folder of a training or of a
 * diffusers checkpoint. Weights are read when they are needed: the file stays open.
 *
 * @throws {InputError} If there is none, it is damaged, or it is one of latents.
 */
export const loadModel = async (place: string): Promise<Model> =>
  picturesOnly(await loadLocated(await locate(place)), place);

/**
 * A model that makes pictures by itself.
 *
 * @throws {InputError} If it is one of latents.
 */
export function picturesOnly(model: Model, place: string): Model {
  if (!model.autoencoder) return model;
  throw new InputError(
    `Cannot use ${place} here: it is a model of latents, which sample, interpolate, eval and serve take; ` +
      "this needs one of pixels",
  );
}

/** Loads a model that was found. */
export async function loadLocated(located: Located): Promise<Model> {
  switch (located.kind) {
    case "shipped":
      return await fetchModel(located.name);
    case "file":
      return await loadFile(located.path, located.folder);
    case "folder":
      return await loadFolder(located.folder, located.file);
  }
}
