/**
 * How much work to start before waiting for it.
 *
 * @module
 */

import type { Device } from "./device.ts";

/**
 * How long work between two waits should take: short for who watches, and for signals, which are
 * answered there. A wait for a GPU takes at least 11 ms under Deno, and next to nothing elsewhere.
 */
const SHORT_MS = 50, LONG_MS = 200;

/** Chooses how many steps to start at a time, from how long the last ones took. */
export class Pace {
  readonly #target: number;
  #steps = 1;
  #began = 0;

  constructor({ kind }: Pick<Device, "kind">) {
    this.#target = kind === "gpu" && "Deno" in globalThis ? LONG_MS : SHORT_MS;
  }

  /** How many of the `left` steps to start now. */
  begin(left: number): number {
    this.#began = performance.now();
    return Math.min(this.#steps, left);
  }

  /** Tells that `steps` steps are done, and lets timers and signals have their turn. */
  async end(steps: number): Promise<void> {
    const each = (performance.now() - this.#began) / steps;
    // A wait is part of it, so that this is rather too few, and what is slow at first stays alone.
    this.#steps = Math.max(1, Math.floor(this.#target / each));
    await new Promise((resolve) => setTimeout(resolve));
  }
}
