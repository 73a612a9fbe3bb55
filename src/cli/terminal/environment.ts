/**
 * Variables of the environment, where Deno may look at them, and what they tell.
 *
 * @module
 */

import { join } from "@std/path";

/** Whether Deno may read and set a variable. */
export const mayUse = (variable: string): boolean =>
  Deno.permissions.querySync({ name: "env", variable }).state === "granted";

/** A variable of the environment, if there is one and Deno may look. */
export const environment = (variable: string): string | undefined =>
  mayUse(variable) ? Deno.env.get(variable) || undefined : undefined;

/**
 * The folder for what can be had again: `$XDG_CACHE_HOME/ddpm`, or what is usual on the system;
 * `undefined` if no variable tells.
 */
export function cacheFolder(): string | undefined {
  const home = environment("HOME");
  const usual = {
    windows: environment("LOCALAPPDATA"),
    darwin: home && join(home, "Library", "Caches"),
  }[Deno.build.os as string] ?? (home && join(home, ".cache"));
  const base = environment("XDG_CACHE_HOME") ?? usual;
  return base && join(base, "ddpm");
}
