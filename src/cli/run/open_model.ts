/**
 * Models out of what trainings leave: besides whole models, the states that are kept of earlier
 * steps.
 *
 * @module
 */

import { dirname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import { readSafetensors, toFloat32 } from "../../formats/safetensors.ts";
import { type Model, parseModel } from "../../model/model.ts";
import { fromFormerLayout } from "../../model/parameters.ts";
import { architectureOf, describeDifference, parseFields } from "../../train/run_config.ts";
import { LAYOUT } from "../../train/state_file.ts";
import { kindOf, readFile } from "../terminal/files.ts";
import { loadLocated, locate, type Located, picturesOnly } from "./load_model.ts";
import { isIntact } from "./state_file.ts";

/** What states are called. */
const STATE = /^(.*[/\\])?state(-\d+)?\.safetensors$/;

/**
 * Loads a model: a name, a file or a folder, or a state of a training, of which the moving average of
 * the weights is taken.
 *
 * @throws {InputError} If there is none, it is damaged, or it is one of latents.
 */
export const openModel = async (place: string): Promise<Model> =>
  picturesOnly(await openAnyModel(place), place);

/** Loads a model as {@linkcode openModel}, also one of latents. */
export const openAnyModel = async (place: string): Promise<Model> =>
  await openLocated(place, await locate(place));

/** Whether a model that was found is a state. */
export const isState = (located: Located): boolean =>
  located.kind === "file" && STATE.test(located.path);

/** Loads what was found at a place. */
export async function openLocated(place: string, located: Located): Promise<Model> {
  if (!isState(located)) return await loadLocated(located);
  const bytes = await readFile(place), { tensors, metadata } = readSafetensors(bytes, place);
  const ema = tensors.get("ema");
  if (!ema || metadata.step === undefined) return await loadLocated(located);
  const refuse = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  if (!isIntact(bytes)) throw refuse("it is damaged, its checksum does not match");
  const path = join(dirname(place), "model.safetensors");
  if (await kindOf(path) !== "file") {
    throw refuse(
      "a state holds weights alone; the model.safetensors of its training must lie beside it",
    );
  }
  const model = parseModel(await readFile(path), path), { layout } = model.network;
  const network = parseFields(metadata.network ?? metadata.unet);
  const difference = describeDifference(network, place, architectureOf(model.network), path);
  if (difference) throw refuse(`it is of another network: ${difference}`);
  const isFormer = metadata.layout === undefined;
  if (ema.dtype !== "F32" || !isFormer && metadata.layout !== LAYOUT) {
    throw refuse("its weights lie as another version of this program had them");
  }
  const values = toFloat32(ema), parameters = isFormer ? fromFormerLayout(layout, values) : values;
  if (parameters.length !== layout.size || !parameters.every(Number.isFinite)) {
    throw refuse("its weights are not those of the network");
  }
  return { ...model, parameters, card: { ...model.card, steps: metadata.step } };
}
