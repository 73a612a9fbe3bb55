/**
 * The page's side of trainings that are in a Worker.
 *
 * @module
 */

import type { StepRecord } from "../train/records.ts";
import type { Caller } from "./channel.ts";
import type {
  OpenedTrainer,
  WorkerPictures,
  WorkerRunOptions,
  WorkerSamplerOptions,
} from "./protocol.ts";
import { WorkerSampler } from "./worker_sampler.ts";

/**
 * A training in a Worker. While it runs, samplers of the same Worker take turns with it.
 *
 * @example A few steps, and what they have come to
 * ```ts
 * import { openWorker } from "@x/ddpm/worker";
 *
 * using device = await openWorker("cpu");
 * const size = { name: "ramps", count: 4, height: 8, width: 8, channels: 1 } as const;
 * const data = Uint8Array.from({ length: 4 * 64 }, (_, i) => 4 * (i % 64));
 * const network = { block_out_channels: [8], norm_num_groups: 4, layers_per_block: 1,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] };
 * using trainer = await device.trainer({ ...size, data }, { network, training: { batch_size: 2 } });
 * await trainer.run({ steps: 3, onSteps: (last) => console.log(last.at(-1)?.loss) });
 * using sampler = await trainer.sampler({ steps: 4 });
 * console.log((await sampler.sample({ count: 2 })).shape); // [8, 8, 1]
 * ```
 */
export class WorkerTrainer implements Disposable {
  /** What it learns from. */
  readonly pictures: WorkerPictures;
  /** How many numbers it learns. */
  readonly parameters: number;
  readonly #caller: Caller;
  readonly #id: number;
  #step: number;

  /** @internal */
  constructor(caller: Caller, { id, step, parameters, pictures }: OpenedTrainer) {
    this.pictures = pictures;
    this.parameters = parameters;
    this.#caller = caller;
    this.#id = id;
    this.#step = step;
  }

  /** Steps done so far, as far as it was told. */
  get step(): number {
    return this.#step;
  }

  /**
   * Trains.
   *
   * @returns Steps done so far.
   * @throws {InputError} If the training diverges.
   * @throws {DeviceError} If the device fails.
   */
  async run({ steps = Infinity, signal, onSteps }: WorkerRunOptions = {}): Promise<number> {
    const onReport = async (records: readonly StepRecord[]) => {
      this.#step = records.at(-1)!.step;
      await onSteps?.(records);
    };
    return await this.#caller.call("train", { trainer: this.#id, steps }, { signal, onReport });
  }

  /**
   * Compiles a sampler by the moving average of the weights, as it is at the time of sampling. It ends
   * with the training.
   *
   * @throws {InputError} If the settings do not fit the model.
   * @throws {DeviceError} If it does not fit the device.
   */
  async sampler(options: WorkerSamplerOptions = {}): Promise<WorkerSampler> {
    const call = { trainer: this.#id, options };
    return new WorkerSampler(this.#caller, await this.#caller.call("compileAverage", call));
  }

  /**
   * All of the training as a file: the state that `ddpm train --resume` takes, its configuration, and
   * its pictures. `ddpm train --resume --data FILE --out FOLDER` goes on with it in Deno, and
   * {@linkcode WorkerDevice.resume} here.
   *
   * @throws {InputError} If weights are not finite, or the browser computes no checksums for the page.
   * @throws {DeviceError} If the device fails.
   */
  save(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#caller.call("saveTraining", this.#id);
  }

  /**
   * The model with the moving average of the weights, as a file that everything here reads.
   *
   * @throws {DeviceError} If the device fails.
   */
  model(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#caller.call("saveModel", this.#id);
  }

  /** Frees its memory in the Worker. */
  [Symbol.dispose](): void {
    this.#caller.call("endTraining", this.#id).catch(() => {});
  }
}
