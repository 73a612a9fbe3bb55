/**
 * Reading of configurations that cross over to other tools: snake case in files, camel case in
 * TypeScript, and one line about what is wrong.
 *
 * @module
 */

import type { z } from "zod";
import { InputError } from "./errors.ts";

/** Strings, whose insides stay, and the values that JSON of Python may hold beside those of JSON. */
const PYTHON_TOKEN = /"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)(?!\s*:)/g;

/**
 * Parses JSON as Python's `json` writes it, with `NaN`, `Infinity` and `-Infinity` among the numbers.
 *
 * @throws {SyntaxError} If it is no JSON in Python either.
 */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // JSON has numbers too large for a double, which are infinite, but nothing that is NaN.
    let nan = "NaN";
    while (text.includes(nan)) nan += "_";
    const standard = text.replace(
      PYTHON_TOKEN,
      (token) => token === "NaN" ? `"${nan}"` : token.replace(/^(-?)Infinity$/, "$11e999"),
    );
    if (standard === text) throw error;
    return JSON.parse(standard, (_, value) => value === nan ? NaN : value);
  }
}

/** The fields that say something: null is "not given", and names with `_` are other tools' notes. */
export function givenFields(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([key, value]) => !key.startsWith("_") && value !== null),
  );
}

/** A snake_case name in camelCase. */
type Camel<S extends string> = S extends `${infer A}_${infer B}` ? `${A}${Capitalize<Camel<B>>}`
  : S;

/** An object with its keys in camelCase. */
export type CamelKeys<T> = { [K in keyof T as K extends string ? Camel<K> : K]: T[K] };

/** The object with its keys in camelCase. */
export function toCamelCase<T extends object>(fields: T): CamelKeys<T> {
  const camel = (key: string) => key.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [camel(key), value]),
  ) as CamelKeys<T>;
}

/** The object with its keys in snake_case. */
export function toSnakeCase(fields: object): Record<string, unknown> {
  const snake = (key: string) => key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [snake(key), value]));
}

/**
 * Validates a value.
 *
 * @param what What it is, for the message.
 * @throws {InputError} With the first thing that is wrong.
 */
export function parseWith<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue.path.length ? `${issue.path.join(".")}: ` : "";
  throw new InputError(`Bad ${what}: ${where}${issue.message}`);
}
