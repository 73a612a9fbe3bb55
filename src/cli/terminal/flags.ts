/**
 * Command-line flags. Each command has a table of its flags; anything else is an error that suggests
 * the closest name.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { InputError } from "../../errors.ts";

/** A flag in the table of a command. */
export interface Flag {
  readonly kind: "text" | "integer" | "number" | "switch";
  /** The range of a number. */
  readonly min?: number;
  readonly max?: number;
  /** The allowed values of a text. */
  readonly choices?: readonly string[];
  /** Whether a text may be empty. */
  readonly mayBeEmpty?: boolean;
  /** Placeholder of the value in the help. */
  readonly value?: string;
  /** The default, or a description of it, for the help; the command applies it. */
  readonly default?: string | number;
  readonly help: string;
}

type ValueOf<F extends Flag> = F["kind"] extends "text" ? string
  : F["kind"] extends "switch" ? boolean
  : number;

/** The parsed values of the flags that were given. */
export type Flags<T extends Record<string, Flag>> = { readonly [K in keyof T]?: ValueOf<T[K]> };

/**
 * Parses flags and positional arguments.
 *
 * @throws {InputError} If a flag is unknown or given twice, or its value is invalid.
 */
export function parseFlags<const T extends Record<string, Flag>>(
  args: readonly string[],
  table: T,
): { flags: Flags<T>; rest: string[] } {
  const names = Object.keys(table);
  const isSwitch = (name: string) => table[name].kind === "switch";
  const valued = names.filter((name) => !isSwitch(name)), switches = names.filter(isSwitch);
  const parsed = parseArgs(joinNegatives(args, valued), {
    string: [...valued, "_"],
    boolean: switches,
    unknown(arg: string) {
      if (!arg.startsWith("-") || arg === "-") return true;
      const flag = arg.replace(/=.*/s, "");
      throw new InputError(
        `Unknown flag ${flag}${suggest(flag.replace(/^-+/, ""), names, "--")}`,
      );
    },
  });
  const filled = switches.find((name) => args.some((arg) => arg.startsWith(`--${name}=`)));
  if (filled) throw new InputError(`--${filled} takes no value`);
  const given = args.slice(0, args.includes("--") ? args.indexOf("--") : args.length);
  const flags: Record<string, unknown> = {};
  for (const name of names) {
    const value = parsed[name];
    if (value === undefined || value === false) continue;
    const places = [...given.keys()].filter((i) =>
      given[i] === `--${name}` || given[i].startsWith(`--${name}=`)
    );
    if (places.length > 1) throw new InputError(`--${name} was given twice: once is enough`);
    const isTold = given[places[0]] === `--${name}=` || given[places[0] + 1] === "";
    flags[name] = value === "" && isTold && table[name].mayBeEmpty
      ? ""
      : isSwitch(name)
      ? true
      : readValue(name, table[name], String(value));
  }
  return { flags: flags as Flags<T>, rest: parsed._.map(String) };
}

/** `--seed -1` as `--seed=-1`: a negative number and a lone `-` are values, not flags. */
function joinNegatives(args: readonly string[], valued: readonly string[]): string[] {
  const joined: string[] = [];
  for (const [i, arg] of args.entries()) {
    const isValue = /^-([\d.]|$)/.test(arg) && valued.some((name) => args[i - 1] === `--${name}`);
    if (isValue) joined[joined.length - 1] += `=${arg}`;
    else joined.push(arg);
  }
  return joined;
}

function readValue(name: string, flag: Flag, text: string): string | number {
  const { kind, min = -Infinity, max = Infinity, choices } = flag;
  if (text === "") throw new InputError(`--${name} needs a value`);
  if (kind === "text") {
    if (choices && !choices.includes(text)) {
      throw new InputError(
        `--${name} must be one of ${choices.join(", ")}, not ${text}` + suggest(text, choices),
      );
    }
    return text;
  }
  const value = Number(text);
  const isGood = /^[-+]?[\d.]+(e[-+]?\d+)?$/i.test(text) && Number.isFinite(value) &&
    (kind === "number" || Number.isSafeInteger(value));
  if (!isGood || value < min || value > max) {
    const what = kind === "integer" ? "a whole number" : "a number";
    const range = max === Infinity
      ? min === -Infinity ? "" : ` of at least ${min}`
      : ` from ${min} to ${max}`;
    throw new InputError(`--${name} must be ${what}${range}, not ${text}`);
  }
  return value;
}

/** "; did you mean …?" if a known name is close, otherwise nothing. */
export function suggest(given: string, known: readonly string[], prefix = ""): string {
  const near = known.map((name) => ({ name, distance: editDistance(given, name) }))
    .sort((a, b) => a.distance - b.distance)[0];
  const isNear = near && near.distance <= Math.max(2, Math.ceil(near.name.length / 2));
  return isNear ? `; did you mean ${prefix}${near.name}?` : "";
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + Number(a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length];
}
