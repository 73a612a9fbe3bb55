/**
 * Ctrl-C during long work. First: finish gracefully and save. Second: exit now.
 *
 * @module
 */

import type { Progress } from "../terminal/progress.ts";

/** The exit code after an interruption. */
export const INTERRUPTED = 130;

const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM"];

/** Listens for signals until it is disposed of. */
export class Interruption implements Disposable {
  readonly #abort = new AbortController();
  readonly #listen: () => void;

  /** @param what What happens before the end, for the message: "saving". */
  constructor(progress: Progress, what: string) {
    this.#listen = () => {
      if (this.signal.aborted) Deno.exit(INTERRUPTED);
      progress.say(`interrupted: ${what}; press Ctrl-C again to exit at once`);
      this.#abort.abort();
    };
    for (const name of SIGNALS) Deno.addSignalListener(name, this.#listen);
  }

  /** Aborts at the first signal. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) Deno.removeSignalListener(name, this.#listen);
  }
}
