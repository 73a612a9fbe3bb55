/**
 * Variables of the environment, where Deno may look at them.
 *
 * @module
 */

/** Whether Deno may read and set a variable. */
export const mayUse = (variable: string): boolean =>
  Deno.permissions.querySync({ name: "env", variable }).state === "granted";

/** A variable of the environment, if there is one and Deno may look. */
export const environment = (variable: string): string | undefined =>
  mayUse(variable) ? Deno.env.get(variable) : undefined;
