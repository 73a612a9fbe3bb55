/**
 * What signals do to work that takes long: one asks for an end that keeps what is done, be it Ctrl-C,
 * SIGTERM, or the closing of the terminal, unless the program was started by nohup; Ctrl-C or SIGTERM
 * once more is one.
 *
 * @module
 */

import { outlivesTerminal } from "../terminal/hangup.ts";
import type { Progress } from "../terminal/progress.ts";

/** The exit code of a program that was interrupted. */
export const INTERRUPTED = 130;

const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", ...(outlivesTerminal ? [] : ["SIGHUP" as const])];

/** Listens for signals until it is disposed of. */
export class Interruption implements Disposable {
  readonly #abort = new AbortController();
  readonly #listeners: readonly (readonly [Deno.Signal, () => void])[];

  /** @param what What is going to be done with what there is, "saving". */
  constructor(progress: Progress, what: string) {
    this.#listeners = SIGNALS.map((name) => [name, () => this.#take(name, progress, what)]);
    for (const [name, listen] of this.#listeners) Deno.addSignalListener(name, listen);
  }

  #take(name: Deno.Signal, progress: Progress, what: string): void {
    const isHangup = name === "SIGHUP";
    if (this.signal.aborted) {
      // The system and a shell may both tell of a terminal that is closed.
      if (!isHangup) Deno.exit(INTERRUPTED);
      return;
    }
    progress.say(
      isHangup ? `terminal closed: ${what}` : `interrupted: ${what}; once more ends at once`,
    );
    this.#abort.abort();
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    for (const [name, listen] of this.#listeners) Deno.removeSignalListener(name, listen);
  }
}
