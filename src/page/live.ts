/**
 * Runs while something is dragged: the newest wish counts.
 *
 * @module
 */

/** A run that is older than this is stopped for a newer one. */
const PATIENCE_MS = 250;

/** Does one thing at a time, the newest one next. */
export class Live<T> {
  readonly #run: (wish: T, signal: AbortSignal) => Promise<void>;
  #next: T | undefined;
  #stop: AbortController | undefined;
  #began = 0;

  constructor(run: (wish: T, signal: AbortSignal) => Promise<void>) {
    this.#run = run;
  }

  /** Wishes for something; whatever was wished before and has not begun is forgotten. */
  async ask(wish: T): Promise<void> {
    this.#next = wish;
    if (this.#stop) {
      if (performance.now() - this.#began > PATIENCE_MS) this.#stop.abort();
      return;
    }
    while (this.#next !== undefined) {
      const now = this.#next;
      this.#next = undefined;
      this.#stop = new AbortController();
      this.#began = performance.now();
      try {
        await this.#run(now, this.#stop.signal);
      } finally {
        this.#stop = undefined;
      }
    }
  }

  /** Forgets all wishes. */
  cancel(): void {
    this.#next = undefined;
    this.#stop?.abort();
  }
}
