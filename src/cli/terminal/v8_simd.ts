/**
 * The wide mode: V8 started with flags under which the CPU's kernels run up to twice as fast. They
 * cannot be set later, so the program starts itself again.
 *
 * @module
 */

import { environment } from "./environment.ts";

/** How V8 is told. */
const VARIABLE = "DENO_V8_FLAGS";
/** To make 256-bit vectors of pairs, which takes memory accesses without checks between them. */
const WIDE_FLAGS = ["--experimental-wasm-revectorize", "--no-wasm-bounds-checks"];

/** The flags that this process was started with, as far as it may know. */
const givenFlags = () => environment(VARIABLE)?.split(",").filter(Boolean) ?? [];

/** Whether this process was started for the wide mode. */
export const isWide = (): boolean => WIDE_FLAGS.every((flag) => givenFlags().includes(flag));

/** The variable that starts Deno in the wide mode, and its value. */
export const wideEnvironment = (): Record<string, string> => ({
  [VARIABLE]: [...new Set([...givenFlags(), ...WIDE_FLAGS])].join(","),
});

/** Runs a command in a new process in the wide mode; returns its exit code. */
export async function runWide(args: readonly string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", Deno.mainModule, ...args],
    env: wideEnvironment(),
  }).spawn();
  // A terminal's Ctrl-C reaches both; this one stays until the other has saved its work.
  const stay = () => {};
  const pass = () => child.kill("SIGTERM");
  Deno.addSignalListener("SIGINT", stay);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", pass);
  try {
    return (await child.status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", stay);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", pass);
  }
}
