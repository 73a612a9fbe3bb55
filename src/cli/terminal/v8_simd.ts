/**
 * Wide mode: V8 flags with which the CPU kernels run up to twice as fast. They only take effect at
 * start-up, so the program restarts itself.
 *
 * @module
 */

import { environment } from "./environment.ts";
import { outlivesTerminal } from "./hangup.ts";

/** The variable that passes flags to V8. */
const VARIABLE = "DENO_V8_FLAGS";
/** Fuse pairs of 128-bit vectors to 256 bits, which needs loads and stores without bounds checks. */
const WIDE_FLAGS = ["--experimental-wasm-revectorize", "--no-wasm-bounds-checks"];

/** The flags that this process was started with, if it may read them. */
const givenFlags = () => environment(VARIABLE)?.split(",").filter(Boolean) ?? [];

/** Whether this process was started in wide mode. */
export const isWide = (): boolean => WIDE_FLAGS.every((flag) => givenFlags().includes(flag));

/** The environment variable that starts Deno in wide mode, with its value. */
export const wideEnvironment = (): Record<string, string> => ({
  [VARIABLE]: [...new Set([...givenFlags(), ...WIDE_FLAGS])].join(","),
});

/** Runs a command in a new process in wide mode; returns its exit code. */
export async function runWide(args: readonly string[]): Promise<number> {
  // If this process outlives its terminal, the child must too.
  const wrapper = outlivesTerminal ? ["sh", "-c", `trap "" HUP; exec "$@"`, "sh"] : [];
  const [command, ...rest] = [...wrapper, Deno.execPath(), "run", "-A", Deno.mainModule, ...args];
  const child = new Deno.Command(command, { args: rest, env: wideEnvironment() }).spawn();
  // Ctrl-C in a terminal reaches both processes; this one waits until the child has saved its work.
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
