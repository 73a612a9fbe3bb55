/**
 * Training: a {@linkcode Trainer} is a model, a data set and an optimizer on a device.
 *
 * @module
 */

import type { MemoryPlan, ProgramDescription } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { compileBatch } from "../gpu/compile_batch.ts";
import { seedWords } from "../gpu/philox.ts";
import type { Model, Trainable } from "../model/model.ts";
import { writeWeights } from "../diffusion/weights.ts";
import { resizeNetwork } from "../model/network.ts";
import { shardName } from "../model/parameters.ts";
import { weightsOf } from "../model/weights.ts";
import { Mutex } from "../mutex.ts";
import { type Batches, openBatches } from "../data/batches.ts";
import { ConditionFeed } from "./condition_feed.ts";
import { emaDecayAt, learningRateAt, type TrainingConfig } from "./config.ts";
import { type Dataset, ImageOrder } from "../data/dataset.ts";
import { Validation } from "./validation.ts";
import { LossScale } from "./loss_scale.ts";
import {
  checkFits,
  type ItemSize,
  makeStepSpec,
  partOf,
  type Split,
  trainValidationSplit,
} from "./step_inputs.ts";
import { readRecords, type StepRecord } from "./records.ts";
import {
  type RestorableState,
  restoreState,
  shardsAmong,
  stateBuffers,
  type TrainingState,
} from "./state.ts";
import {
  encodeRates,
  evaluationStep,
  gradientStep,
  tallySize,
  trainingStep,
  updateStep,
} from "./step.ts";

export type { ItemSize };

/** What became of a model: the same, with its weights in memory. */
export type Trained<M extends Trainable> = M & {
  readonly parameters: Float32Array<ArrayBuffer>;
};

/**
 * A training on a device, of a model or of an autoencoder. Dispose of it to free its memory.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseTraining, parseNetwork, Trainer } from "@x/ddpm";
 * import { idxDataset } from "@x/ddpm/data";
 *
 * const data = idxDataset("ramps", {
 *   shape: [4, 8, 8],
 *   data: Uint8Array.from({ length: 4 * 8 * 8 }, (_, i) => i),
 * });
 * const network = parseNetwork({ in_channels: 1, out_channels: 1, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(network, { beta_schedule: "linear" }, 0);
 * using device = await openDevice("cpu");
 * using trainer = await Trainer.create(device, model, data, parseTraining({ batch_size: 2 }));
 * for (let step = 0; step < 3; step++) await trainer.run();
 * for (const { step, loss } of await trainer.records(3)) console.log(step, loss);
 * const trained = await trainer.model({ data: data.name });
 * console.log(trained.network.itemShape); // [8, 8, 1]
 * ```
 */
export class Trainer<M extends Trainable = Model> implements Disposable {
  /** Its settings. */
  readonly config: TrainingConfig;
  /** Whether it computes what lies within blocks of the network twice, to take less memory. */
  readonly recomputes: boolean;
  /** A step, or a part of one. */
  readonly #program: Program;
  /** What owns the state: the step, or what follows its parts. */
  readonly #update: Program;
  readonly #heldOut: Validation | undefined;
  /** Without its initial weights, which are as large as what a step learns. */
  readonly #model: Omit<M, "parameters">;
  readonly #data: Dataset;
  readonly #conditions: ConditionFeed;
  readonly #batches: Batches;
  readonly #mutex = new Mutex();
  #step = 0;

  private constructor(
    [program, update, evaluation]: readonly [Program, Program, Program | undefined],
    recomputes: boolean,
    model: M,
    data: Dataset,
    split: Split,
    config: TrainingConfig,
  ) {
    this.config = config;
    this.recomputes = recomputes;
    this.#program = program;
    this.#update = update;
    const { parameters: _, ...rest } = model;
    this.#model = rest;
    this.#data = data;
    this.#conditions = new ConditionFeed(model.network, data, config);
    const { learnt, heldOut } = split, { seed } = config, size = partOf(config);
    const order = new ImageOrder(learnt.length, seed);
    const imageAt = (place: number) => learnt[order.at(place)];
    this.#batches = openBatches(data, { size, seed, imageAt });
    if (!evaluation) return;
    const heldAt = (place: number) => heldOut[place % heldOut.length];
    const held = openBatches(data, { size, seed, imageAt: heldAt });
    const parts = Math.ceil(heldOut.length / size);
    this.#heldOut = new Validation(evaluation, held, this.#conditions, size, parts);
  }

  /**
   * Compiles a training step. The model's parameters are the initial ones.
   *
   * @throws {InputError} If model and data do not fit.
   * @throws {LimitError} If it does not fit the device; it names the largest batch that does.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseTraining, parseNetwork, Trainer } from "@x/ddpm";
   * import { idxDataset } from "@x/ddpm/data";
   *
   * const data = idxDataset("noise", {
   *   shape: [64, 8, 8],
   *   data: crypto.getRandomValues(new Uint8Array(64 * 8 * 8)),
   * });
   * const network = parseNetwork({ in_channels: 1, out_channels: 1, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * const settings = parseTraining({ batch_size: 2 });
   * using trainer = await Trainer.create(device, initializeModel(network, {}, 0), data, settings);
   * await trainer.run();
   * console.log(await trainer.records(1)); // [{ step: 1, loss: 1.0..., gradientNorm: ... }]
   * ```
   */
  static async create<M extends Trainable>(
    device: Device,
    model: M,
    data: Dataset,
    config: TrainingConfig,
  ): Promise<Trainer<M>> {
    checkFits(model, data, config);
    const part = partOf(config), images = config.batchSize;
    const programs: Program[] = [];
    try {
      if (part < images) {
        const graph = updateStep(model.network, config);
        programs.push(await device.compile(graph, { label: "the end of a training step" }));
      }
      const [update] = programs;
      const graphFor = (recomputes: boolean) => (part: number) => {
        const spec = makeStepSpec(model, data, config, { part, images, recomputes });
        return update ? gradientStep(spec, config) : trainingStep(spec, config);
      };
      const options = update
        ? { label: "a part of a training step", buffers: update.buffers }
        : { label: "a training step" };
      const ways = config.gradientCheckpointing ? [true] : [false, true];
      const { program, way } = await compileBatch(device, part, ways.map(graphFor), {
        ...options,
        precision: config.precision,
      });
      programs.push(program);
      const { buffers } = update ?? program;
      Object.values(weightsOf(model)).forEach((values, k) => {
        const names = ["parameters", "ema"].map((name) => shardName(name, k));
        writeWeights(values, ...names.map((name) => buffers[name]));
      });
      const split = trainValidationSplit(data.count, config), { length } = split.heldOut;
      let evaluation: Program | undefined;
      if (length) {
        const sizes = { part, images: part * Math.ceil(length / part), isEvaluation: true };
        const graph = evaluationStep(makeStepSpec(model, data, config, sizes));
        const label = "the loss of images that are held out";
        evaluation = await device.compile(graph, {
          ...{ label, buffers: averageAmong(buffers), precision: config.precision },
        });
        programs.push(evaluation);
      }
      buffers.scaling?.write(LossScale.first);
      for (const { buffers } of [program, ...(evaluation ? [evaluation] : [])]) {
        buffers.seed?.write(seedWords(config.seed));
      }
      const all = [program, update ?? program, evaluation] as const;
      return new Trainer(all, ways[way], model, data, split, config);
    } catch (error) {
      for (const program of programs) program[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The memory that a training would take, before there is one.
   *
   * @throws {InputError} If model and data do not fit.
   */
  static plan(
    device: Device,
    model: Trainable,
    data: ItemSize,
    config: TrainingConfig,
  ): MemoryPlan {
    const part = partOf(config), images = config.batchSize;
    const planFor = (recomputes: boolean): MemoryPlan => {
      const spec = makeStepSpec(model, data, config, { part, images, recomputes });
      const { precision } = config;
      if (part === images) return device.plan(trainingStep(spec, config), { precision });
      const rest = device.plan(updateStep(model.network, config)),
        plan = device.plan(gradientStep(spec, config), { precision });
      const shared = 4 * (2 * model.network.layout.size + tallySize(model.network));
      return { ...plan, bytes: plan.bytes + rest.bytes - shared };
    };
    const plan = planFor(config.gradientCheckpointing);
    return plan.excess && !config.gradientCheckpointing ? planFor(true) : plan;
  }

  /** What the arrays of its state lie in, on the device. */
  get buffers(): Readonly<Record<string, TensorBuffer>> {
    return stateBuffers(this.#update.buffers);
  }

  /** Steps done so far. */
  get step(): number {
    return this.#step;
  }

  /** Bytes on the device, all told. */
  get memory(): number {
    const programs = new Set([this.#program, this.#update, this.#heldOut?.program]);
    return [...programs].reduce((sum, program) => sum + (program?.memory ?? 0), 0);
  }

  /** Numbers that the network learns. */
  get parameters(): number {
    return this.#model.network.layout.count;
  }

  /** Parts of a step. */
  get #parts(): number {
    return this.config.batchSize / partOf(this.config);
  }

  /** Whether the step ends with another program than its parts. */
  get #isInParts(): boolean {
    return this.#update !== this.#program;
  }

  /** Floating point operations of a step. */
  get flops(): number {
    return this.#parts * this.#program.flops;
  }

  /** Kernels of a step. */
  get dispatches(): number {
    const { dispatches } = this.#update;
    return this.#parts * this.#program.dispatches + (this.#isInParts ? dispatches : 0);
  }

  /**
   * The moving average of the weights, on the device, by the names of the inputs that networks read
   * theirs from: for sampling while training.
   */
  get average(): Readonly<Record<string, TensorBuffer>> {
    return averageAmong(this.#update.buffers);
  }

  /**
   * Starts a step as soon as its images are there; returns before it is done. Calls at the same time
   * take turns.
   *
   * @throws {DeviceError} If something failed since the last wait.
   * @throws {InputError} If too many images cannot be read.
   */
  async run(): Promise<void> {
    using _ = await this.#mutex.acquire();
    for (let part = 0; part < this.#parts; part++) {
      await this.#feed(part);
      this.#program.run();
    }
    if (this.#isInParts) this.#update.run();
    this.#step++;
  }

  /**
   * Does a step kernel by kernel, and tells how long each took: milliseconds, in the order of
   * {@linkcode Trainer.describe}.
   *
   * @throws {DeviceError} If the device failed.
   */
  async profile(): Promise<readonly number[]> {
    using _ = await this.#mutex.acquire();
    let times: readonly number[] = [];
    for (let part = 0; part < this.#parts; part++) {
      await this.#feed(part);
      times = await this.#program.profile();
    }
    if (this.#isInParts) this.#update.run();
    this.#step++;
    return times;
  }

  /** What a step consists of, or a part of one. */
  describe(): ProgramDescription {
    return this.#program.describe();
  }

  /** Writes what the next step works on, or a part of it. */
  async #feed(part: number): Promise<void> {
    const { config } = this, step = this.#step, first = part * partOf(config);
    const batch = await this.#batches.at(step * config.batchSize + first);
    const { buffers } = this.#program;
    buffers.images.write(batch.images);
    this.#conditions.write(buffers, batch, { step, first });
    // A codebook leaves nothing to chance.
    buffers.first?.write([first]);
    buffers.step?.write([step]);
    if (this.#isInParts) buffers.isNext.write([Math.min(part, 1)]);
    if (part) return;
    const rates = {
      step,
      learningRate: learningRateAt(config, step),
      emaDecay: emaDecayAt(config, step),
    };
    this.#update.buffers.rates.write(encodeRates(rates, config));
  }

  /**
   * The mean loss over the images that are held out, by the moving average of the weights: at
   * timesteps and with noise that are always the same, without dropout. Images are repeated until
   * they fill whole batches.
   *
   * @throws {RangeError} If none are held out.
   * @throws {DeviceError} If the device failed.
   */
  async evaluate(): Promise<number> {
    if (!this.#heldOut) throw new RangeError("Cannot evaluate: no images are held out");
    using _ = await this.#mutex.acquire();
    return await this.#heldOut.loss();
  }

  /**
   * Waits for all steps, and tells how the last ones went.
   *
   * @param count How many, at most 1024.
   * @throws {DeviceError} If the device failed.
   */
  async records(count: number): Promise<StepRecord[]> {
    using _ = await this.#mutex.acquire();
    const history = await this.#update.buffers.history.read();
    return readRecords(history, this.#model.network, this.#step, count);
  }

  /**
   * Everything that is needed to go on.
   *
   * @throws {DeviceError} If the device failed.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseTraining, parseNetwork, Trainer } from "@x/ddpm";
   * import { idxDataset } from "@x/ddpm/data";
   *
   * const data = idxDataset("black", { shape: [2, 8, 8], data: new Uint8Array(2 * 8 * 8) });
   * const network = parseNetwork({ in_channels: 1, out_channels: 1, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * const model = initializeModel(network, {}, 0), settings = parseTraining({ batch_size: 1 });
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
    using _ = await this.#mutex.acquire();
    const reads = Object.entries(this.buffers).map(async (
      [name, buffer],
    ) => [name, await buffer.read()]);
    return { step: this.#step, arrays: Object.fromEntries(await Promise.all(reads)) };
  }

  /**
   * Goes on from a state.
   *
   * @throws {InputError} If it is no state, or that of another network.
   */
  restore(state: RestorableState): void {
    restoreState(state, this.buffers);
    this.#step = state.step;
  }

  /**
   * The model with the moving average of the weights, which is the one to sample from or to use.
   *
   * @param card What is known of its making, for its file.
   * @throws {DeviceError} If the device failed.
   */
  async model(card: Readonly<Record<string, string>> = {}): Promise<Trained<M>> {
    using _ = await this.#mutex.acquire();
    const parameters = await this.buffers.ema.read() as Float32Array<ArrayBuffer>;
    const network = resizeNetwork(this.#model.network, this.#data.shape);
    return { ...this.#model, network, parameters, card } as unknown as Trained<M>;
  }

  /** Frees its memory; the device lives on. */
  [Symbol.dispose](): void {
    this.#batches[Symbol.dispose]();
    this.#heldOut?.[Symbol.dispose]();
    this.#program[Symbol.dispose]();
    if (this.#isInParts) this.#update[Symbol.dispose]();
  }
}

/** The moving average of the weights among buffers, under the names of weights. */
const averageAmong = (buffers: Readonly<Record<string, TensorBuffer>>) =>
  Object.fromEntries(
    shardsAmong(buffers, "ema").map((buffer, k) => [shardName("parameters", k), buffer]),
  );
