/**
 * Tensors that are spread over several files, with an index that tells where each is.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../errors.ts";
import type { StoredTensor } from "./safetensors.ts";

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** The name of a file beside the index: not a path. */
const isName = (name: string) => /^[^/\\:\p{Cc}]+$/u.test(name) && !/^\.+$/.test(name);

/** Which file has which tensors. */
export type ShardIndex = ReadonlyMap<string, ReadonlySet<string>>;

/**
 * Reads an index, as libraries of Python write `*.safetensors.index.json`.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is none, or names a file that is not beside it.
 */
export function readShardIndex(json: unknown, what: string): ShardIndex {
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw new InputError(
      `Cannot read ${what} as an index of weights: ${path.join(".")}: ${message}`,
    );
  }
  const shards = new Map<string, Set<string>>();
  for (const [tensor, file] of Object.entries(parsed.data.weight_map)) {
    if (!isName(file)) {
      throw new InputError(
        `Cannot use ${what}: ${tensor} is said to be in ${
          JSON.stringify(file)
        }, but files lie beside ` +
          "their index",
      );
    }
    const tensors = shards.get(file) ?? new Set();
    shards.set(file, tensors.add(tensor));
  }
  if (!shards.size) throw new InputError(`Cannot use ${what}: it names no weights`);
  return new Map([...shards].sort(([a], [b]) => a < b ? -1 : 1));
}

/**
 * All tensors of the files of an index.
 *
 * @param shards The tensors of each of its files.
 * @param what What the index is called, for messages.
 * @throws {InputError} If files and index contradict each other.
 */
export function joinShards(
  index: ShardIndex,
  shards: ReadonlyMap<string, ReadonlyMap<string, StoredTensor>>,
  what: string,
): Map<string, StoredTensor> {
  const all = new Map<string, StoredTensor>(), owners = new Map<string, string>();
  const bad = (why: string) => new InputError(`Cannot use ${what}: ${why}`);
  for (const [file, expected] of index) {
    const tensors = shards.get(file);
    if (!tensors) throw bad(`there is no ${file}`);
    for (const name of expected) {
      if (!tensors.has(name)) throw bad(`${name} is said to be in ${file}, which does not hold it`);
    }
    for (const [name, tensor] of tensors) {
      const other = owners.get(name);
      if (other) throw bad(`${name} is both in ${other} and in ${file}`);
      if (!expected.has(name) && ![...index.values()].some((names) => names.has(name))) {
        throw bad(`${file} holds ${name}, of which it says nothing`);
      }
      owners.set(name, file);
      all.set(name, tensor);
    }
  }
  return all;
}
