/**
 * What Ctrl-C does to work that takes long: once asks for an end that keeps what is done, twice is
 * one.
 *
 * @module
 */

import type { Progress } from "../terminal/progress.ts";

/** The exit code of a program that was interrupted. */
export const INTERRUPTED = 130;

const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM"];

/** Listens for signals until it is disposed of. */
export class Interruption implements Disposable {
  readonly #abort = new AbortController();
  readonly #listen: () => void;

  /** @param what What is going to be done with what there is, "saving". */
  constructor(progress: Progress, what: string) {
    this.#listen = () => {
      if (this.signal.aborted) Deno.exit(INTERRUPTED);
      progress.say(`interrupted: ${what}; once more ends at once`);
      this.#abort.abort();
    };
    for (const name of SIGNALS) Deno.addSignalListener(name, this.#listen);
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) Deno.removeSignalListener(name, this.#listen);
  }
}
