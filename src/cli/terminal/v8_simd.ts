/**
 * The wide mode: V8 started with flags under which the CPU's kernels run up to twice as fast. They
 * cannot be set later, so the program starts itself again.
 *
 * @module
 */

import { environment } from "./environment.ts";
import { outlivesTerminal } from "./hangup.ts";

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
  // It is to outlive its terminal if this one is.
  const wrapper = outlivesTerminal ? ["sh", "-c", `trap "" HUP; exec "$@"`, "sh"] : [];
  const [command, ...rest] = [...wrapper, Deno.execPath(), "run", "-A", Deno.mainModule, ...args];
  const child = new Deno.Command(command, { args: rest, env: wideEnvironment() }).spawn();
  // A terminal's Ctrl-C reaches both; this one stays until the other has saved its work.
  const passed = Deno.build.os === "windows" ? [] : ["SIGTERM", "SIGHUP"] as const;
  const listeners: [Deno.Signal, () => void][] = [["SIGINT", () => {}]];
  for (const name of passed) listeners.push([name, () => pass(child, name)]);
  for (const [name, listen] of listeners) Deno.addSignalListener(name, listen);
  try {
    return (await child.status).code;
  } finally {
    for (const [name, listen] of listeners) Deno.removeSignalListener(name, listen);
  }
}

function pass(child: Deno.ChildProcess, name: Deno.Signal): void {
  try {
    child.kill(name);
  } catch { /* It has ended already. */ }
}
