/**
 * Environment variables, as far as Deno has permission to read them.
 *
 * @module
 */

import { join } from "@std/path";

/** Whether Deno may read and set an environment variable. */
export const mayUse = (variable: string): boolean =>
  Deno.permissions.querySync({ name: "env", variable }).state === "granted";

/** An environment variable; `undefined` if it is not set or Deno may not read it. */
export const environment = (variable: string): string | undefined =>
  mayUse(variable) ? Deno.env.get(variable) || undefined : undefined;

/**
 * The cache folder: `$XDG_CACHE_HOME/ddpm`, or the standard place of the system; `undefined` if no
 * variable names one.
 */
export function cacheFolder(): string | undefined {
  const home = environment("HOME");
  const standard = {
    windows: environment("LOCALAPPDATA"),
    darwin: home && join(home, "Library", "Caches"),
  }[Deno.build.os as string] ?? (home && join(home, ".cache"));
  const base = environment("XDG_CACHE_HOME") ?? standard;
  return base && join(base, "ddpm");
}
