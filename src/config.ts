/**
 * Reading of configurations that cross over to other tools: snake case in files, camel case in
 * TypeScript, and one line about what is wrong.
 *
 * @module
 */

import type { z } from "zod";
import { InputError } from "./errors.ts";

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
