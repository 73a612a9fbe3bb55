/**
 * Models in one file, whichever project it is of.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Bytes } from "../formats/bytes.ts";
import { readTensorFile } from "../formats/torch.ts";
import {
  type FamilyModel,
  familyNames,
  findAutoencoderFamily,
  findFamily,
  readFamily,
} from "./families/mod.ts";
import type { FamilyOptions } from "./families/family.ts";
import { findPipelineFamily } from "./families/pipelines.ts";
import { holdsNetwork, modelFrom } from "./model.ts";

/**
 * Reads a model from a file: one of this project, or one of another, which is told by the names of its
 * tensors. As long as the model is used, the file must be there.
 *
 * @param what What it is called, for messages.
 * @param beside Finds what is known beside the file; asked only if the file does not tell.
 * @throws {InputError} If it is damaged, or of none of the projects.
 *
 * @example
 * ```ts
 * import { initializeModel, parseNetwork, readModelFile, serializeModel } from "@x/ddpm";
 *
 * const network = parseNetwork({ block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const { model, notes } = await readModelFile(serializeModel(initializeModel(network, {}, 0)));
 * console.log(model.network.layout.count, notes);
 * ```
 */
export async function readModelFile(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "the model",
  beside: () => FamilyOptions | Promise<FamilyOptions> = () => ({}),
): Promise<FamilyModel> {
  const read = await readTensorFile(file, what), { tensors, metadata } = read;
  if (holdsNetwork(metadata)) return { model: modelFrom(read, what), notes: [] };
  const family = findFamily(tensors);
  if (family) return readFamily(family, tensors, what, await beside());
  const pipeline = findPipelineFamily(tensors);
  if (pipeline) {
    throw new InputError(
      `Cannot load ${what} as a model of one network: it holds a pipeline of ${pipeline.name}`,
    );
  }
  const other = findAutoencoderFamily(tensors);
  if (other) throw new InputError(`Cannot load ${what}: it is an autoencoder of ${other.name}`);
  throw new InputError(
    `Cannot load ${what}: its header holds no network, and its tensors do not have the names of ` +
      familyNames.join(" or "),
  );
}
