/**
 * How much work to start before waiting for it.
 *
 * @module
 */

/** Work between two waits should take about this long: worth a wait, and short for who watches. */
const TARGET_MS = 200;

/** Chooses how many steps to start at a time, from how long the last ones took. */
export class Pace {
  #steps = 1;
  #began = 0;

  /** How many of the `left` steps to start now. */
  begin(left: number): number {
    this.#began = performance.now();
    return Math.min(this.#steps, left);
  }

  /** Tells that `steps` steps are done, and lets timers and signals have their turn. */
  async end(steps: number): Promise<void> {
    const each = (performance.now() - this.#began) / steps;
    // A wait is part of it, so that this is rather too few, and what is slow at first stays alone.
    this.#steps = Math.max(1, Math.floor(TARGET_MS / each));
    await new Promise((resolve) => setTimeout(resolve));
  }
}
