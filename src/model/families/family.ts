/**
 * Files of weights that other projects wrote. A {@linkcode Family} is one file: how its tensors are
 * recognised, the names that they have here, and the configuration that their shapes tell. Nothing else
 * knows of it.
 *
 * @module
 */

import type { ScheduleConfig } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import type { FileTensor } from "../../formats/safetensors.ts";
import type { Fields } from "../network.ts";

/** TensorMap of a file, by name. */
export type TensorMap = ReadonlyMap<string, FileTensor>;

/** What a family of networks of any kind makes of a file. */
export interface FamilyNetwork {
  /** The network, as in a `config.json`. */
  readonly network: Fields;
  /** Its tensors, by the names that they have here. */
  readonly tensors: TensorMap;
  /** What was taken for granted beside the schedule, clauses. */
  readonly guesses: readonly string[];
  /** Which weights were taken, of several, a clause. */
  readonly weightSource?: string;
}

/** What a family of models makes of a file. */
export interface FamilyMember extends FamilyNetwork {
  /** Its noise, as in a `scheduler_config.json`. */
  readonly schedule: Fields;
  /** Where the schedule is from, a clause. */
  readonly scheduleSource: string;
  /** Of a model of latents: what makes them of pictures, and pictures of them. */
  readonly autoencoder?: FamilyNetwork;
}

/** Files of one origin, of models if nothing else is said. */
export interface Family<M = FamilyMember> {
  /** Where they come from. */
  readonly name: string;
  /** Whether tensors are of it. */
  readonly recognizes: (tensors: TensorMap) => boolean;
  /**
   * Reads what was recognised.
   *
   * @param config What is known beside the tensors, an object with the names of the original.
   * @throws {InputError} If a field of it is not known, or contradicts the tensors.
   */
  readonly read: (tensors: TensorMap, config: unknown) => M;
}

/** Former and present names: what matches of a name, and what becomes of it, in order. */
export type NameTable = readonly (readonly [
  pattern: RegExp,
  name: string | ((...match: string[]) => string),
])[];

/** The tensors under other names. */
export const rename = (tensors: TensorMap, table: NameTable): TensorMap =>
  new Map(
    [...tensors].map(([name, tensor]) => [
      table.reduce(
        (name, [pattern, other]) =>
          typeof other === "string" ? name.replace(pattern, other) : name.replace(pattern, other),
        name,
      ),
      tensor,
    ]),
  );

/** The tensors whose names begin so, without that. */
export const below = (tensors: TensorMap, prefix: string): TensorMap =>
  new Map(
    [...tensors].filter(([name]) => name.startsWith(prefix))
      .map(([name, tensor]) => [name.slice(prefix.length), tensor]),
  );

/**
 * A size of a tensor.
 *
 * @throws {InputError} If it is not there.
 */
export function sizeIn(tensors: TensorMap, name: string, axis: number): number {
  const size = tensors.get(name)?.shape[axis];
  if (size !== undefined) return size;
  throw new InputError(`the file lacks ${name}, or it has no ${axis + 1} axes`);
}

/** More levels of resolution than anybody has. */
const MOST_LEVELS = 16;

/**
 * How many levels a network has, given what the names of each begin with.
 *
 * @throws {InputError} If there are more than any network has.
 */
export function levelsOf(tensors: TensorMap, pattern: string): number {
  const levels = countOf(tensors, pattern);
  if (levels <= MOST_LEVELS) return levels;
  throw new InputError(`it has ${levels} levels of resolution`);
}

/** How many numbers from 0 on there are in the place of the asterisk, of those that begin so. */
export function countOf(tensors: TensorMap, pattern: string): number {
  const [before, after = ""] = pattern.split("*"), there = new Set<string>();
  for (const name of tensors.keys()) {
    if (!name.startsWith(before)) continue;
    const [number] = name.slice(before.length).match(/^\d*/)!;
    if (name.startsWith(after, before.length + number.length)) there.add(number);
  }
  let count = 0;
  while (there.has(String(count))) count++;
  return count;
}

/**
 * Compares what is said with what tensors tell.
 *
 * @throws {InputError} If they differ.
 */
export function agree(given: Fields, told: Fields): void {
  for (const [field, value] of Object.entries(given)) {
    if (!Object.hasOwn(told, field) || JSON.stringify(told[field]) === JSON.stringify(value)) {
      continue;
    }
    throw new InputError(
      `its configuration says ${field} ${JSON.stringify(value)}, but its tensors are of ` +
        JSON.stringify(told[field]),
    );
  }
}

/** What is known beside the tensors of a file. */
export interface FamilyOptions {
  /** Arguments of the original's network, by its names: an object. */
  readonly config?: unknown;
  /** Its noise schedule, if it is not the usual one of the family. */
  readonly schedule?: ScheduleConfig | undefined;
}

/** What a file was taken for, and what was taken for granted of its networks. */
export const notesOf = (
  { name }: Pick<Family, "name">,
  ...networks: readonly FamilyNetwork[]
): string[] => [
  `its tensors have the names of ${name}`,
  ...networks.flatMap(({ weightSource, guesses }) => [
    ...(weightSource ? [weightSource] : []),
    ...guesses,
  ]),
];

/** Reads a file; what is wrong with it is told together with what it was taken for. */
export function explained<T>({ name }: Pick<Family, "name">, what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof InputError) || error.message.startsWith("Cannot load")) throw error;
    throw new InputError(
      `Cannot load ${what}, whose tensors have the names of ${name}: ${error.message}; a ` +
        "config.json beside it, or a file of its name and .json, can tell what they do not",
    );
  }
}
