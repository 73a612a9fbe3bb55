/**
 * How far numbers are from golden ones, and the reading of those.
 *
 * @module
 */

import { basename } from "@std/path";
import { nameTensors } from "../src/model/tensors.ts";
import type { ParameterLayout } from "../src/model/parameters.ts";
import { readSafetensors } from "../src/formats/safetensors.ts";

/** How far a case is from its golden numbers. */
export interface Comparison {
  readonly name: string;
  readonly error: number;
  readonly tolerance: number;
  /** Where it is farthest. */
  readonly worst: string;
}

export type Numbers = ArrayLike<number>;

/** The largest magnitude; NaN if there is one. */
export function largest(values: Numbers): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i]) <= most)) most = Math.abs(values[i]);
  }
  return most;
}

/** The largest difference relative to `scale`, by default the largest expected value. */
export function relativeError(
  actual: Numbers,
  expected: Numbers,
  scale = largest(expected),
): number {
  if (actual.length !== expected.length) return Infinity;
  return largest(Array.from(expected, (x, i) => actual[i] - x)) / (scale || 1);
}

/** The norm of the difference relative to the norm of what is expected. */
export function relativeNorm(actual: Numbers, expected: Numbers): number {
  const norm = (values: number[]) => Math.sqrt(values.reduce((s, x) => s + x * x, 0));
  const wanted = Array.from(expected);
  return norm(wanted.map((x, i) => actual[i] - x)) / (norm(wanted) || 1);
}

/** Errors of named tensors, as one comparison. */
export function compare(
  name: string,
  tolerance: number,
  pairs: readonly { name: string; actual: Numbers; expected: Numbers }[],
  measure: (actual: Numbers, expected: Numbers) => number = relativeError,
): Comparison {
  const errors = pairs.map((p) => ({ worst: p.name, error: measure(p.actual, p.expected) }));
  return { name, tolerance, ...worstOf(errors) };
}

export const worstOf = <T extends { error: number }>(errors: readonly T[]): T =>
  errors.reduce((a, b) => b.error > a.error || Number.isNaN(b.error) ? b : a);

export const readTensors = async (path: string) =>
  readSafetensors(await Deno.readFile(path), basename(path)).tensors;
/** Python writes numbers that JSON does not know. */
export const readJson = async (path: string) =>
  JSON.parse((await Deno.readTextFile(path)).replace(/-?Infinity|NaN/g, "null"));

/** Gradients and weights by name, in the order of files. */
export function byName(layout: ParameterLayout, flat: Float32Array<ArrayBuffer>) {
  return new Map(nameTensors(layout, flat).map(({ name, values }) => [name, values]));
}

/**
 * Gradients that are zero in theory (of a bias before a softmax or a norm) are noise in practice:
 * tensors this much smaller than the largest are compared relative to a thousandth of it.
 */
const NOISE = 1e-6;

/** Errors of gradients by name, as one comparison. */
export function compareGradients(
  folder: string,
  pairs: readonly { name: string; actual: Numbers; expected: Numbers }[],
): Comparison {
  const top = Math.max(...pairs.map((p) => largest(p.expected)));
  const errors = pairs.map(({ name, actual, expected }) => {
    const own = largest(expected), scale = own < NOISE * top ? top / 1000 : own;
    return { worst: name, error: relativeError(actual, expected, scale) };
  });
  return { name: `${folder} gradients`, tolerance: 1e-3, ...worstOf(errors) };
}
