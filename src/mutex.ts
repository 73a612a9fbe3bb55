/**
 * Turns for whatever has one place to compute in.
 *
 * @module
 */

import { withResolvers } from "./ponyfills.ts";

/** Lets one at a time through, in the order of their asking. */
export class Mutex {
  #last: Promise<void> = Promise.resolve();

  /** Waits for its turn, which ends when what is returned is disposed of. */
  async acquire(): Promise<Disposable> {
    const { promise, resolve } = withResolvers<void>(), before = this.#last;
    this.#last = promise;
    await before;
    return { [Symbol.dispose]: resolve };
  }
}
