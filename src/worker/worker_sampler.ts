/**
 * The page's side of samplers that are in a Worker.
 *
 * @module
 */

import type { Samples, SamplingStep } from "../sample/options.ts";
import type { Shape } from "../shape.ts";
import type { Caller } from "./channel.ts";
import type { OpenedSampler, WorkerStreamOptions } from "./protocol.ts";

/** What a page keeps to itself of a run. */
export interface WorkerCallOptions {
  /** Stops between evaluations of the network; what is done so far is returned. */
  readonly signal?: AbortSignal;
  /** Is told how many of all steps of all batches are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A sampler in a Worker; what is given and taken is copied. */
export class WorkerSampler implements Disposable {
  /** The shape of what it makes. */
  readonly itemShape: Shape;
  /** Steps of a run. */
  readonly steps: number;
  /** Evaluations of the network in a run. */
  readonly evaluations: number;
  readonly #caller: Caller;
  readonly #id: number;

  /** @internal */
  constructor(caller: Caller, { id, itemShape, steps, evaluations }: OpenedSampler) {
    this.itemShape = itemShape;
    this.steps = steps;
    this.evaluations = evaluations;
    this.#caller = caller;
    this.#id = id;
  }

  /**
   * Makes items, as `Sampler.sample()`.
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   */
  sample(
    options: WorkerStreamOptions = {},
    { signal, onProgress }: WorkerCallOptions = {},
  ): Promise<Samples> {
    const onReport = ([done, total]: [number, number]) => onProgress?.(done, total);
    return this.#caller.call("sample", { sampler: this.#id, options }, { signal, onReport });
  }

  /**
   * Makes items and shows how they come about, as `Sampler.stream()`. Who stops listening ends the run.
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   */
  stream(
    options: WorkerStreamOptions = {},
    { signal }: Pick<WorkerCallOptions, "signal"> = {},
  ): AsyncGenerator<SamplingStep, Samples> {
    return this.#caller.stream("stream", { sampler: this.#id, options }, { signal });
  }

  /** Frees its memory in the Worker. */
  [Symbol.dispose](): void {
    this.#caller.call("dispose", this.#id).catch(() => {});
  }
}
