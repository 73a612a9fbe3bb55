/**
 * Training: a {@linkcode Trainer} is a model, a data set and an optimizer on a device.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { MemoryPlan, ProgramDescription } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { compileBatch } from "../gpu/fit.ts";
import type { Graph } from "../gpu/graph.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { seedWords } from "../gpu/philox.ts";
import { input } from "../gpu/tensor.ts";
import type { UNetConfig } from "../model/config.ts";
import type { Model } from "../model/model.ts";
import { learningRateAt, type TrainingConfig } from "./config.ts";
import { type Batches, openBatches } from "./batches.ts";
import { type Dataset, ImageOrder } from "./dataset.ts";
import { checkObjective } from "./objective.ts";
import { encodeRates, HISTORY, trainingStep } from "./step.ts";
import { drawTimesteps } from "./timesteps.ts";

/** The stream of random numbers that the noise comes from; `timesteps.ts` has another. */
const NOISE_STREAM = 12;

/** How a step went. */
export interface StepRecord {
  /** From 1. */
  readonly step: number;
  /** What the objective says, mean over the batch. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** Everything that a training needs to go on, bit for bit as if it had not stopped. */
export interface TrainingState {
  /** How many steps are done. */
  readonly step: number;
  /** The arrays. */
  readonly arrays: StateArrays;
}

/**
 * An array of a training's state: the weights, the moving averages of their gradients and of the
 * gradients' squares, the moving average of the weights, losses and gradient norms.
 */
export type StateName = "parameters" | "moment1" | "moment2" | "ema" | "history";

const STATE_NAMES: readonly StateName[] = ["parameters", "moment1", "moment2", "ema", "history"];

/**
 * The arrays of a training's state. `squaredLosses` are those of each timestep, `[T, 10]`, where
 * timesteps are drawn by `loss_second_moment`.
 */
export type StateArrays =
  & Readonly<Record<StateName, Float32Array<ArrayBuffer>>>
  & { readonly squaredLosses?: Float32Array<ArrayBuffer> };

/**
 * A training on a device. Dispose of it to free its memory.
 *
 * @example
 * ```ts
 * import { idxDataset, initializeModel, openDevice, parseTraining, parseUNetConfig, Trainer }
 *   from "@x/ddpm";
 *
 * const data = idxDataset("ramps", {
 *   shape: [4, 8, 8],
 *   data: Uint8Array.from({ length: 4 * 8 * 8 }, (_, i) => i),
 * });
 * const config = parseUNetConfig({ in_channels: 1, out_channels: 1, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(config, { beta_schedule: "linear" }, 0);
 * using device = await openDevice("cpu");
 * using trainer = await Trainer.create(device, model, data, parseTraining({ batch_size: 2 }));
 * for (let step = 0; step < 3; step++) await trainer.run();
 * for (const { step, loss } of await trainer.records(3)) console.log(step, loss);
 * const trained = await trainer.model({ data: data.name });
 * console.log(trained.config.sampleSize); // [8, 8]
 * ```
 */
export class Trainer implements Disposable {
  /** Its settings. */
  readonly config: TrainingConfig;
  readonly #program: Program;
  readonly #model: Model;
  readonly #data: Dataset;
  readonly #batches: Batches;
  #step = 0;

  private constructor(
    program: Program,
    model: Model,
    data: Dataset,
    config: TrainingConfig,
  ) {
    this.config = config;
    this.#program = program;
    this.#model = model;
    this.#data = data;
    const { batchSize: size, seed } = config, order = new ImageOrder(data.count, seed);
    this.#batches = openBatches(data, { size, seed, imageAt: (place) => order.at(place) });
  }

  /**
   * Compiles a training step. The model's parameters are the initial ones.
   *
   * @throws {InputError} If model and data do not fit.
   * @throws {LimitError} If it does not fit the device; it names the largest batch that does.
   *
   * @example
   * ```ts
   * import { idxDataset, initializeModel, openDevice, parseTraining, parseUNetConfig, Trainer }
   *   from "@x/ddpm";
   *
   * const data = idxDataset("noise", {
   *   shape: [64, 8, 8],
   *   data: crypto.getRandomValues(new Uint8Array(64 * 8 * 8)),
   * });
   * const config = parseUNetConfig({ in_channels: 1, out_channels: 1, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * const settings = parseTraining({ batch_size: 2 });
   * using trainer = await Trainer.create(device, initializeModel(config, {}, 0), data, settings);
   * await trainer.run();
   * console.log(await trainer.records(1)); // [{ step: 1, loss: 1.0..., gradientNorm: ... }]
   * ```
   */
  static async create(
    device: Device,
    model: Model,
    data: Dataset,
    config: TrainingConfig,
  ): Promise<Trainer> {
    checkLabels(model.config, data);
    const graphFor = (batch: number) => stepOf(model, data, config, batch);
    const program = await compileBatch(device, config.batchSize, graphFor, {
      label: "a training step",
    });
    program.buffers.seed.write(seedWords(config.seed));
    for (const name of ["parameters", "ema"]) program.buffers[name].write(model.parameters);
    return new Trainer(program, model, data, config);
  }

  /**
   * The memory that a training would take, before there is one.
   *
   * @throws {InputError} If model and data do not fit.
   */
  static plan(
    device: Device,
    model: Model,
    data: ImageSize,
    config: TrainingConfig,
  ): MemoryPlan {
    return device.plan(stepOf(model, data, config, config.batchSize));
  }

  get #stateBuffers(): [name: string, buffer: TensorBuffer][] {
    return [...STATE_NAMES, "squaredLosses"].filter((name) => this.#program.buffers[name])
      .map((name) => [name, this.#program.buffers[name]]);
  }

  /** Steps done so far. */
  get step(): number {
    return this.#step;
  }

  /** Bytes on the device, all told. */
  get memory(): number {
    return this.#program.memory;
  }

  /** Floating point operations of a step. */
  get flops(): number {
    return this.#program.flops;
  }

  /** Kernels of a step. */
  get dispatches(): number {
    return this.#program.dispatches;
  }

  /** The moving average of the weights, on the device, for sampling while training. */
  get average(): TensorBuffer {
    return this.#program.buffers.ema;
  }

  /**
   * Starts a step as soon as its images are there; returns before it is done. One step is started
   * at a time.
   *
   * @throws {DeviceError} If something failed since the last wait.
   * @throws {InputError} If too many images cannot be read.
   */
  async run(): Promise<void> {
    await this.#feed();
    this.#program.run();
    this.#step++;
  }

  /**
   * Does a step kernel by kernel, and tells how long each took: milliseconds, in the order of
   * {@linkcode Trainer.describe}.
   *
   * @throws {DeviceError} If the device failed.
   */
  async profile(): Promise<readonly number[]> {
    await this.#feed();
    const times = await this.#program.profile();
    this.#step++;
    return times;
  }

  /** What a step consists of. */
  describe(): ProgramDescription {
    return this.#program.describe();
  }

  /** Writes what the next step works on. */
  async #feed(): Promise<void> {
    const { batchSize, emaDecay } = this.config, step = this.#step;
    const { images, labels } = await this.#batches.at(step * batchSize);
    const { buffers } = this.#program;
    buffers.images.write(images);
    if (buffers.labels) buffers.labels.write(labels);
    buffers.step.write([step]);
    const rates = {
      step,
      learningRate: learningRateAt(this.config, step),
      emaDecay: Math.min(emaDecay, (1 + step) / (10 + step)),
    };
    buffers.rates.write(encodeRates(rates, this.config));
  }

  /**
   * Waits for all steps, and tells how the last ones went.
   *
   * @param count How many, at most {@linkcode HISTORY}.
   * @throws {DeviceError} If the device failed.
   */
  async records(count: number): Promise<StepRecord[]> {
    const values = await this.#program.buffers.history.read();
    const first = Math.max(0, this.#step - Math.min(count, HISTORY));
    return Array.from({ length: this.#step - first }, (_, i) => {
      const step = first + i, at = 2 * (step % HISTORY);
      return { step: step + 1, loss: values[at], gradientNorm: values[at + 1] };
    });
  }

  /**
   * Everything that is needed to go on.
   *
   * @throws {DeviceError} If the device failed.
   *
   * @example
   * ```ts
   * import { idxDataset, initializeModel, openDevice, parseTraining, parseUNetConfig, Trainer }
   *   from "@x/ddpm";
   *
   * const data = idxDataset("black", { shape: [2, 8, 8], data: new Uint8Array(2 * 8 * 8) });
   * const config = parseUNetConfig({ in_channels: 1, out_channels: 1, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * const model = initializeModel(config, {}, 0), settings = parseTraining({ batch_size: 1 });
   * using device = await openDevice("cpu");
   * using first = await Trainer.create(device, model, data, settings);
   * await first.run();
   * const state = await first.state();
   *
   * using second = await Trainer.create(device, model, data, settings);
   * second.restore(state);
   * await second.run();
   * console.log(second.step); // 2
   * ```
   */
  async state(): Promise<TrainingState> {
    const reads = this.#stateBuffers.map(async ([name, buffer]) => [name, await buffer.read()]);
    return { step: this.#step, arrays: Object.fromEntries(await Promise.all(reads)) };
  }

  /**
   * Goes on from a state.
   *
   * @throws {InputError} If it is no state, or that of another network.
   */
  restore({ step, arrays }: TrainingState): void {
    if (!(Number.isSafeInteger(step) && step >= 0)) {
      throw new InputError(`Cannot go on: ${step} is no number of steps`);
    }
    const given: Readonly<Record<string, Float32Array | undefined>> = arrays;
    for (const [name, { length }] of this.#stateBuffers) {
      if (given[name]?.length !== length) {
        throw new InputError(
          `Cannot go on: the state has ${given[name]?.length ?? "no"} ${name}, but the training ` +
            `wants ${length}`,
        );
      }
    }
    for (const [name, buffer] of this.#stateBuffers) buffer.write(given[name]!);
    this.#step = step;
  }

  /**
   * The model with the moving average of the weights, which is the one to sample from.
   *
   * @param card What is known of its making, for its file.
   * @throws {DeviceError} If the device failed.
   */
  async model(card: Readonly<Record<string, string>> = {}): Promise<Model> {
    const parameters = await this.#program.buffers.ema.read() as Float32Array<ArrayBuffer>;
    const { height, width } = this.#data;
    const config = { ...this.#model.config, sampleSize: [height, width] as const };
    return { ...this.#model, config, parameters, card };
  }

  /** Frees its memory; the device lives on. */
  [Symbol.dispose](): void {
    this.#batches[Symbol.dispose]();
    this.#program[Symbol.dispose]();
  }
}

/** What a program has to know of images. */
export type ImageSize = Pick<Dataset, "height" | "width" | "channels">;

/** The graph of a step. */
function stepOf(
  { config: net, layout, schedule }: Model,
  { height, width, channels }: ImageSize,
  config: TrainingConfig,
  batch: number,
): Graph {
  checkObjective(config, schedule, net);
  const shape = [batch, height, width, channels];
  const random: RandomState = {
    seed: input("seed", [2], "i32"),
    first: input("first", [1], "i32"),
    step: input("step", [1], "i32"),
  };
  return trainingStep(net, schedule, layout, config, {
    images: input("images", shape),
    noise: randomNormal(shape, random, NOISE_STREAM),
    ...drawTimesteps(config, schedule, batch, random),
    ...(net.numClassEmbeds === null ? {} : { labels: input("labels", [batch], "i32") }),
    ...(net.dropout ? { random } : {}),
  }, config);
}

function checkLabels({ classEmbedType, numClassEmbeds }: UNetConfig, { name, labels }: Dataset) {
  if (classEmbedType !== null) {
    throw new InputError(
      `Cannot train: networks with class_embed_type ${classEmbedType} are not supported`,
    );
  }
  if (numClassEmbeds === null) return;
  if (!labels) {
    throw new InputError(`Cannot train: the network has classes, but ${name} has no labels`);
  }
  const bad = Array.from(labels).find((c) =>
    !(Number.isInteger(c) && c >= 0 && c < numClassEmbeds)
  );
  if (bad !== undefined) {
    throw new InputError(
      `Cannot train: ${name} has the label ${bad}, but the network has classes 0 to ` +
        `${numClassEmbeds - 1}`,
    );
  }
}
