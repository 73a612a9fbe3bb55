/**
 * The flags that choose classes, by names or numbers, and what images they are for.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { philox, seedWords, toInteger } from "../../gpu/philox.ts";
import { conditionsOf } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { ShippedModel } from "../../model/shipped.ts";
import type { Shape } from "../../shape.ts";
import { type Flag, type Flags, suggest } from "../terminal/flags.ts";

/** The stream of random numbers that classes are drawn from where none are given. */
const CLASS_STREAM = 30;

/** Names in a message at most; `info` tells all. */
const MAX_NAMES = 100;

/** Classes that get a column each at most. */
const MAX_COLUMNS = 100;

/** What commands that paint classes understand. */
export const classFlags = {
  class: {
    kind: "text",
    value: "NAME,...",
    help: "classes, names or numbers, a column each; or all, or none",
  },
  label: { kind: "text", value: "NAME,...", help: "the same as --class" },
} as const satisfies Record<string, Flag>;

/**
 * The model where nobody says which: one that reads where there are words, one that knows classes, or
 * one that paints better without where images are of none in particular.
 *
 * @param isOfNone Whether images are of none if no class is asked for.
 */
export const defaultModel = (
  flags: Flags<typeof classFlags>,
  { isOfNone, isOfText = false }: { readonly isOfNone: boolean; readonly isOfText?: boolean },
): ShippedModel =>
  isOfText
    ? "emoji"
    : isOfNone && flags.class === undefined && flags.label === undefined
    ? "mnist-unconditional"
    : "mnist";

/** The classes of a model. */
export interface Classes {
  /** Their names, their numbers where they have none. */
  readonly names: readonly string[];
  /** The number that stands for no class. */
  readonly none?: number;
}

/** A model's classes; `undefined` if it has none, or they are no numbers. */
export function classesOf(model: Model, shape: Shape): Classes | undefined {
  const { below, none } = conditionsOf(model, shape).labels ?? {};
  if (below === undefined) return undefined;
  const count = none ?? below;
  const names = Array.from({ length: count }, (_, i) => model.classes?.[i] ?? String(i));
  return { names, ...(none === undefined ? {} : { none }) };
}

/** "cat, dog and none". */
function listNames({ names, none }: Classes): string {
  const shown = names.slice(0, MAX_NAMES), more = names.length - shown.length;
  const all = more
    ? [...shown, `${more} more, which info lists`]
    : none === undefined
    ? shown
    : [...shown, "none"];
  return all.length === 1 ? all[0] : `${all.slice(0, -1).join(", ")} and ${all[all.length - 1]}`;
}

/** The number of a class. */
function numberOf(name: string, classes: Classes): number {
  const { names, none } = classes, found = names.indexOf(name), number = Number(name);
  if (found >= 0) return found;
  if (name === "none") {
    if (none !== undefined) return none;
    throw new InputError(
      "The model has no class none: it was trained without --label-dropout; its classes are " +
        listNames(classes),
    );
  }
  if (/^\d+$/.test(name) && number < names.length) return number;
  const near = suggest(name, none === undefined ? names : [...names, "none"]);
  throw new InputError(
    `The model has no class ${name}: its classes are ${listNames(classes)}${near}`,
  );
}

/** The numbers of classes that a flag names. */
function numbersOf(text: string, classes: Classes): number[] {
  if (text === "all") return classes.names.map((_, i) => i);
  // A name may have a comma.
  const parts = classes.names.includes(text) ? [text] : text.split(",").map((part) => part.trim());
  return parts.map((part) => numberOf(part, classes));
}

/**
 * The classes that a flag names.
 *
 * @param flag What the flag is called.
 * @param place What the model is called.
 * @throws {InputError} If the model has no classes, or not these.
 */
export function readClasses(
  flag: string,
  text: string,
  classes: Classes | undefined,
  place: string,
): number[] {
  if (classes) return numbersOf(text, classes);
  throw new InputError(
    `--${flag} is for models with classes: ${place} has none, since it was trained without; ` +
      "train learns those of the data with --label-dropout 0.1",
  );
}

/** Which classes images are of. */
export interface ClassPlan {
  /** How many images there are. */
  readonly count: number;
  /** For each image; `undefined` for models without. */
  readonly labels?: readonly number[];
  /** The name of each image's class. */
  readonly names?: readonly string[];
  /** Columns of a grid that has one for each class. */
  readonly columns?: number;
  /** What was chosen where nothing was asked for, in words. */
  readonly notice?: string;
}

/**
 * Plans the classes of images: those that were asked for in turns, so that image k of a seed does not
 * depend on the count. Without any, they are drawn from the seed, or images are of none.
 *
 * @param usual How many images there are if nobody says: more where classes would be left out.
 * @param prefersNone Whether images are rather of none, if the model knows that: a drawn class would
 * contradict what they begin with.
 * @throws {InputError} If the model has no classes, or not these, or there are fewer images.
 */
export function planClasses(
  flags: Flags<typeof classFlags>,
  classes: Classes | undefined,
  place: string,
  { count, usual, seed, prefersNone }: {
    readonly count: number | undefined;
    readonly usual: number;
    readonly seed: number;
    readonly prefersNone: boolean;
  },
): ClassPlan {
  if (flags.class !== undefined && flags.label !== undefined) {
    throw new InputError("Give --class or --label: they are the same");
  }
  const text = flags.class ?? flags.label, flag = flags.class === undefined ? "label" : "class";
  const given = text === undefined ? undefined : readClasses(flag, text, classes, place);
  const many = given?.length ?? 1, total = count ?? many * Math.ceil(usual / many);
  if (!classes) return { count: total };
  if (total < many) {
    throw new InputError(`--${flag} asks for ${many} classes: --count ${total} leaves some out`);
  }
  const { names, none } = classes, usualClass = prefersNone ? none : undefined;
  const labels = given
    ? Array.from({ length: total }, (_, k) => given[k % many])
    : usualClass === undefined
    ? drawClasses(total, seed, names.length)
    : new Array<number>(total).fill(usualClass);
  const named = labels.map((label) => label === none ? "none" : names[label]);
  const shown = total > 16 ? [...named.slice(0, 16), "…"] : named;
  return {
    ...{ count: total, labels, names: named },
    ...(many > 1 && many <= MAX_COLUMNS ? { columns: many } : {}),
    ...(given ? {} : {
      notice: usualClass === undefined
        ? `drawn by chance: ${shown.join(", ")}; --class chooses`
        : "none; --class chooses",
    }),
  };
}

/** A class for each image of a seed, whatever their count. */
function drawClasses(count: number, seed: number, classes: number): number[] {
  const words = new Uint32Array(4), [low, high] = seedWords(seed);
  return Array.from({ length: count }, (_, k) => {
    philox([0, k, 0, CLASS_STREAM], [low, high], words);
    return toInteger(words[0], classes);
  });
}
