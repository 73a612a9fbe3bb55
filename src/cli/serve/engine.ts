/**
 * The device of the server, and what is compiled for it.
 *
 * @module
 */

import { type Device, DeviceError, LimitError } from "../../gpu/device.ts";
import type { Samples } from "../../sample/options.ts";
import type { PaintedStep, Painter, Plan } from "./plan.ts";

/** Painters that stay compiled, and the bytes that they take together with their weights. */
const KEPT = 8, KEPT_BYTES = 2 ** 30;
/** Steps that are shown, at most. */
const SHOWN = 60;

/** Computes one plan at a time. */
export class Engine implements Disposable {
  readonly #open: () => Promise<Device>;
  #device: Device;
  /** By what they were compiled for, the last used last. */
  readonly #painters = new Map<string, { readonly painter: Painter; readonly bytes: number }>();

  private constructor(open: () => Promise<Device>, device: Device) {
    this.#open = open;
    this.#device = device;
  }

  /** @param open Opens the device, again if it was lost. */
  static async create(open: () => Promise<Device>): Promise<Engine> {
    return new Engine(open, await open());
  }

  /** What computes, in words. */
  get name(): string {
    return this.#device.name;
  }

  /**
   * Does what was planned, and shows steps.
   *
   * @throws {DeviceError} If the device fails; the next plan gets a new one.
   */
  async *run(plan: Plan, signal: AbortSignal): AsyncGenerator<PaintedStep, Samples> {
    // What is not kept is freed.
    using own = new DisposableStack();
    try {
      const painter = await this.#painterFor(plan);
      if (plan.key === undefined) own.use(painter);
      const every = Math.ceil(painter.steps / SHOWN);
      return plan.finish(yield* painter.stream({ ...plan.options, every, signal }));
    } catch (error) {
      if (error instanceof DeviceError && !(error instanceof LimitError)) await this.#reopen();
      throw error;
    }
  }

  async #painterFor(plan: Plan): Promise<Painter> {
    const { key } = plan;
    if (key === undefined) return await plan.compile(this.#device);
    const known = this.#painters.get(key);
    this.#painters.delete(key);
    if (known) {
      this.#painters.set(key, known);
      return known.painter;
    }
    this.#shrink(KEPT - 1, KEPT_BYTES - plan.weights);
    const painter = await plan.compile(this.#device), bytes = painter.memory + plan.weights;
    this.#shrink(KEPT - 1, KEPT_BYTES - bytes);
    this.#painters.set(key, { painter, bytes });
    return painter;
  }

  /** Forgets painters that were not used for long, until there are no more than so many and so large. */
  #shrink(most: number, mostBytes: number): void {
    let held = this.#painters.values().reduce((n, { bytes }) => n + bytes, 0);
    for (const [key, { painter, bytes }] of this.#painters) {
      if (this.#painters.size <= most && held <= mostBytes) return;
      this.#painters.delete(key);
      held -= bytes;
      painter[Symbol.dispose]();
    }
  }

  #forget(): void {
    for (const { painter } of this.#painters.values()) painter[Symbol.dispose]();
    this.#painters.clear();
  }

  async #reopen(): Promise<void> {
    this[Symbol.dispose]();
    this.#device = await this.#open();
  }

  [Symbol.dispose](): void {
    this.#forget();
    this.#device[Symbol.dispose]();
  }
}
