/**
 * Trainings in one file: a state with its configuration, and the pictures that it learns from, which a
 * page has in no folder. Readers of arrays find the pictures, and `train --resume` all of it.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { CLASSES_KEY, tensorPictures } from "../data/datasets/array_files.ts";
import type { Pictures } from "../data/pictures.ts";
import { isAllFinite } from "../formats/elements.ts";
import { type NamedTensor, readSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { hasSeal, writeSealedFile } from "../formats/sealed.ts";
import { formatRunConfig, parseFields, parseRunConfig, type RunConfig } from "./run_config.ts";
import type { RestorableState, TrainingState } from "./state.ts";
import { parseState, stateMetadata } from "./state_file.ts";

/** Where the header holds the configuration. */
const CONFIG = "configuration";
/** The tensors that are of the pictures. */
const IMAGES = "images", LABELS = "labels";

/** Pictures of one size in memory. */
export type ArrayPictures = Pictures & Required<Pick<Pictures, "array">>;

/** What is in the file of a training. */
export interface SavedTraining {
  readonly config: RunConfig;
  readonly state: RestorableState;
}

/**
 * A training as the bytes of a file.
 *
 * @throws {InputError} If weights are not finite, or the browser computes no checksums for the page.
 */
export async function writeTraining(
  config: RunConfig,
  { step, arrays }: TrainingState,
  { array: { layout, bytes }, labels, classes }: ArrayPictures,
): Promise<Uint8Array<ArrayBuffer>> {
  const { count, height, width, channels } = layout;
  const tensors: NamedTensor[] = Object.entries(arrays).map(([name, values]) => {
    // Gradients that overflowed are part of the history.
    if (name !== "history" && !isAllFinite(values)) {
      throw new InputError(`Cannot save the training: its ${name} are no longer finite`);
    }
    return { name, shape: [values.length], values };
  });
  if (labels) tensors.push({ name: LABELS, shape: [count], values: Int32Array.from(labels) });
  tensors.push({ name: IMAGES, shape: [count, height, width, channels], values: bytes });
  return await writeSealedFile(tensors, {
    ...stateMetadata(step, config.network),
    [CONFIG]: JSON.stringify(formatRunConfig(config)),
    ...(classes ? { [CLASSES_KEY]: JSON.stringify(classes) } : {}),
  });
}

/** Whether a file holds all of a training, by its metadata. */
export const holdsTraining = ({ metadata }: Pick<Safetensors, "metadata">): boolean =>
  metadata[CONFIG] !== undefined;

/**
 * The configuration and the state in the file of a training whose checksum matches.
 *
 * @param what What it is called.
 * @throws {InputError} If they do not go together.
 */
export function parseSavedTraining(
  { tensors, metadata }: Safetensors,
  what: string,
): SavedTraining {
  const config = parseRunConfig(parseFields(metadata[CONFIG]), `configuration in ${what}`);
  const arrays = new Map([...tensors].filter(([name]) => name !== IMAGES && name !== LABELS));
  const state = parseState({ tensors: arrays, metadata }, what, config.network, "its header");
  return { config, state };
}

/**
 * All of a training, with its pictures.
 *
 * @param what What the file is called.
 * @throws {InputError} If it is damaged, or holds something else.
 */
export async function readTraining(
  file: Uint8Array<ArrayBuffer>,
  what: string,
): Promise<SavedTraining & { readonly pictures: ArrayPictures }> {
  const found = readSafetensors(file, what);
  if (!holdsTraining(found)) {
    throw new InputError(
      `Cannot go on with ${what}: it is no training that a page saved, with its pictures`,
    );
  }
  if (!await hasSeal(file)) {
    throw new InputError(`Cannot go on with ${what}: it is damaged, its checksum does not match`);
  }
  const pictures = tensorPictures(file, what) as ArrayPictures;
  return { ...parseSavedTraining(found, what), pictures };
}
