/**
 * The loss over images that are not learnt from.
 *
 * @module
 */

import type { Program } from "../gpu/device.ts";
import type { Batches } from "../data/batches.ts";
import type { ConditionFeed } from "./condition_feed.ts";

/** What measures it. */
export class Validation implements Disposable {
  readonly program: Program;
  readonly #batches: Batches;
  readonly #conditions: ConditionFeed;
  readonly #part: number;
  readonly #parts: number;

  /**
   * @param program Adds up the losses of parts; it is owned.
   * @param batches The images, repeated until they fill whole parts; they are owned.
   * @param conditions What the network is told of them.
   * @param part Images of a part.
   * @param parts How many parts there are.
   */
  constructor(
    program: Program,
    batches: Batches,
    conditions: ConditionFeed,
    part: number,
    parts: number,
  ) {
    this.program = program;
    this.#batches = batches;
    this.#conditions = conditions;
    this.#part = part;
    this.#parts = parts;
  }

  /** The mean. */
  async loss(): Promise<number> {
    const { buffers } = this.program;
    for (let i = 0; i < this.#parts; i++) {
      const batch = await this.#batches.at(i * this.#part);
      buffers.images.write(batch.images);
      this.#conditions.write(buffers, batch, undefined);
      buffers.first?.write([i * this.#part]);
      buffers.isNext.write([Math.min(i, 1)]);
      this.program.run();
    }
    return (await buffers.tally.read(0, 1))[0];
  }

  [Symbol.dispose](): void {
    this.#batches[Symbol.dispose]();
    this.program[Symbol.dispose]();
  }
}
