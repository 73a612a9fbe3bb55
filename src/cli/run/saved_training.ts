/**
 * Trainings that a browser's page saved, which go on in a folder.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { readSafetensors } from "../../formats/safetensors.ts";
import { findSeal } from "../../formats/sealed.ts";
import {
  holdsTraining,
  parseSavedTraining,
  type SavedTraining,
} from "../../train/training_file.ts";
import { FileBytes, kindOf } from "../terminal/files.ts";
import { isIntact } from "./state_file.ts";

/** Bytes in which a checksum is, if there is one. */
const HEAD = 4096;

/**
 * The training in a file; nothing if it is something else. The file stays open until it is disposed of.
 *
 * @throws {InputError} If it is damaged.
 */
export async function openSavedTraining(
  path: string,
): Promise<(SavedTraining & Disposable) | undefined> {
  if (await kindOf(path) !== "file") return undefined;
  using stack = new DisposableStack();
  const bytes = stack.use(new FileBytes(path));
  if (findSeal(bytes.read(0, HEAD)) === undefined) return undefined;
  const found = readSafetensors(bytes, path);
  if (!holdsTraining(found)) return undefined;
  if (!isIntact(bytes)) {
    throw new InputError(`Cannot resume: ${path} is damaged, its checksum does not match`);
  }
  const saved = parseSavedTraining(found, path), file = stack.move();
  return { ...saved, [Symbol.dispose]: () => file.dispose() };
}
