/**
 * Signals during long work. The first one, be it Ctrl-C, SIGTERM, or the terminal being closed (unless
 * the program was started with nohup): finish gracefully and save. Ctrl-C or SIGTERM again: exit now.
 *
 * @module
 */

import { outlivesTerminal } from "../terminal/hangup.ts";
import type { Progress } from "../terminal/progress.ts";

/** The exit code after an interruption. */
export const INTERRUPTED = 130;

const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", ...(outlivesTerminal ? [] : ["SIGHUP" as const])];

/** Listens for signals until it is disposed of. */
export class Interruption implements Disposable {
  readonly #abort = new AbortController();
  readonly #listeners: readonly (readonly [Deno.Signal, () => void])[];

  /** @param what What happens before the end, for the message: "saving". */
  constructor(progress: Progress, what: string) {
    this.#listeners = SIGNALS.map((name) => [name, () => this.#take(name, progress, what)]);
    for (const [name, listen] of this.#listeners) Deno.addSignalListener(name, listen);
  }

  #take(name: Deno.Signal, progress: Progress, what: string): void {
    const isHangup = name === "SIGHUP";
    if (this.signal.aborted) {
      // The system and a shell may both report a terminal that is closed.
      if (!isHangup) Deno.exit(INTERRUPTED);
      return;
    }
    progress.say(
      isHangup
        ? `terminal closed: ${what}`
        : `interrupted: ${what}; press Ctrl-C again to exit at once`,
    );
    this.#abort.abort();
  }

  /** Aborts at the first signal. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    for (const [name, listen] of this.#listeners) Deno.removeSignalListener(name, listen);
  }
}
