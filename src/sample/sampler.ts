/**
 * Sampling: a {@linkcode Sampler} is a model, a method and a number of steps compiled for a device.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { ProgramDescription } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { makeGraph } from "../gpu/graph.ts";
import { map } from "../gpu/ops/map.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { broadcastTo } from "../gpu/ops/view.ts";
import { add } from "../gpu/expression.ts";
import { Pace } from "../gpu/step_pacer.ts";
import { seedWords } from "../gpu/philox.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { constant, input } from "../gpu/tensor.ts";
import type { Model } from "../model/model.ts";
import { sourceOf, viewParameters } from "../model/parameters.ts";
import { outputChannels } from "../diffusion/prediction.ts";
import { NoiseSchedule } from "../diffusion/schedule.ts";
import { unet } from "../model/unet.ts";
import type {
  Images,
  SampleOptions,
  SamplerOptions,
  SamplingStep,
  StreamOptions,
} from "./options.ts";
import type { Solver, UpdateTable } from "./solver.ts";
import { START_STREAM } from "./interpolate.ts";
import { defaultMethod, type MethodName, methods } from "./solvers/mod.ts";
import { BROKEN, memoriesOf, samplingStep } from "./step.ts";
import { makeUpdateTable } from "./timesteps.ts";

/** The stream of random numbers that steps add. */
const STEP_STREAM = 2;

/**
 * A model, a method and a number of steps, compiled. Dispose of it to free its memory.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseUNetConfig, Sampler } from "@x/ddpm";
 *
 * const config = parseUNetConfig({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(config, {}, 0);
 * using device = await openDevice("cpu");
 * using sampler = await Sampler.create(device, model, { method: "ddpm", steps: 3, batchSize: 2 });
 * const images = await sampler.sample({
 *   count: 2,
 *   seed: 7,
 *   onProgress: (done, total) => console.log(`${done} of ${total}`),
 * });
 * console.log(images.data.length); // 2 * 8 * 8 * 3
 * ```
 */
export class Sampler implements Disposable {
  readonly #device: Device;
  readonly #method: Solver;
  readonly #programs: { readonly start: Program; readonly step: Program };
  readonly #owned: Disposable[];
  readonly #shape: readonly [number, number, number, number];
  /** How many evaluations are done after each step. */
  readonly #ends: readonly number[];
  readonly #classes: number | undefined;

  private constructor(
    device: Device,
    method: Solver,
    plan: UpdateTable,
    programs: { readonly start: Program; readonly step: Program },
    owned: Disposable[],
    shape: readonly [number, number, number, number],
    classes: number | undefined,
  ) {
    this.#device = device;
    this.#method = method;
    this.#programs = programs;
    this.#owned = owned;
    this.#shape = shape;
    this.#ends = plan.flatMap(({ endsStep = true }, i) => endsStep ? [i + 1] : []);
    this.#classes = classes;
  }

  /**
   * Compiles a sampler.
   *
   * @throws {InputError} If the settings do not fit the model.
   * @throws {DeviceError} If it does not fit the device.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseUNetConfig, Sampler } from "@x/ddpm";
   *
   * const config = parseUNetConfig({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
   *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(config, {}, 0), { steps: 2 });
   * const images = await sampler.sample({ count: 1, seed: 1 });
   * console.log(images.data.length); // 8 * 8 * 3
   * ```
   */
  static async create(
    device: Device,
    model: Model,
    options: SamplerOptions = {},
  ): Promise<Sampler> {
    const { batchSize = 16, size = model.config.sampleSize, precision = "f32" } = options;
    const { config, layout, schedule } = model, method = methodOf(options.method);
    checkInteger(batchSize, 1, "the batch size");
    if (!size) throw new InputError("The model is for images of any size: give one");
    for (const side of size) checkInteger(side, 1, "the height or width");
    if (config.classEmbedType !== null) {
      throw new InputError(
        `Cannot sample: networks with class_embed_type ${config.classEmbedType} are not supported`,
      );
    }
    if (config.outChannels !== outputChannels(schedule, config.inChannels)) {
      throw new InputError(
        `Cannot sample: the network predicts ${config.outChannels} channels of images that have ` +
          `${config.inChannels}, with variance_type ${schedule.varianceType}`,
      );
    }
    const shape = [batchSize, ...size, config.inChannels] as const;
    const plan = makeUpdateTable(method, new NoiseSchedule(schedule), options.steps, options);

    const x = input("x", shape), index = input("index", [1], "i32");
    const random: RandomState = {
      seed: input("seed", [2], "i32"),
      first: input("first", [1], "i32"),
      step: index,
    };
    const labels = config.numClassEmbeds === null ? undefined : input("labels", [batchSize], "i32");
    const parameters = viewParameters(layout, input("parameters", [layout.size]));
    const updates = samplingStep(
      schedule,
      plan,
      x,
      index,
      (sample, timestep) =>
        unet(config, sourceOf(parameters), {
          ...{ sample, timestep },
          ...(labels ? { classLabels: labels } : {}),
        }),
      () => randomNormal(shape, random, STEP_STREAM),
    );
    const states: Record<string, Shape> = {
      ...Object.fromEntries(memoriesOf(plan).map((name) => [name, shape])),
      ...{ sample: shape, health: [1] },
    };

    const owned: Disposable[] = [];
    const own = <T extends Disposable>(resource: T): T => {
      owned.push(resource);
      return resource;
    };
    try {
      let weights = options.parameters;
      if (!weights) {
        weights = own(device.buffer(layout.size));
        weights.write(model.parameters);
      }
      const buffers: Record<string, TensorBuffer> = { parameters: weights };
      for (const [name, shape] of Object.entries({ ...states, x: x.shape })) {
        buffers[name] = own(device.buffer(sizeOf(shape)));
      }
      for (const { name, length } of [{ name: "seed", length: 2 }, { name: "index", length: 1 }]) {
        buffers[name] = own(device.buffer(length, "i32"));
      }
      buffers.first = own(device.buffer(1, "i32"));
      const zeros = Object.entries(states).map(([name, shape]) =>
        [input(name, shape), broadcastTo(constant([0]), shape)] as const
      );
      const start = own(
        await device.compile(
          makeGraph({}, [[x, randomNormal(shape, random, START_STREAM)], ...zeros]),
          { label: "the start of sampling", buffers },
        ),
      );
      const step = own(
        await device.compile(
          makeGraph({}, [...updates, [index, map([index], (i) => add(i, 1), "i32")]]),
          { label: "a sampling step", buffers, constant: ["parameters"], precision },
        ),
      );
      const classes = config.numClassEmbeds ?? undefined;
      return new Sampler(device, method, plan, { start, step }, owned, shape, classes);
    } catch (error) {
      for (const resource of owned.toReversed()) resource[Symbol.dispose]();
      throw error;
    }
  }

  /** Steps of a run. */
  get steps(): number {
    return this.#ends.length;
  }

  /** Evaluations of the network in a run. */
  get evaluations(): number {
    return this.#ends[this.#ends.length - 1];
  }

  /** Floating point operations of an evaluation over a batch. */
  get flops(): number {
    return this.#programs.step.flops;
  }

  /** What a step consists of. */
  describe(): ProgramDescription {
    return this.#programs.step.describe();
  }

  /** Bytes that the programs took on the device, parameters not counted. */
  get memory(): number {
    return this.#programs.start.memory + this.#programs.step.memory;
  }

  /**
   * Makes images. One call at a time: a sampler has one place to compute in.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseUNetConfig, Sampler } from "@x/ddpm";
   *
   * const config = parseUNetConfig({ sample_size: 8, num_class_embeds: 10, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(config, {}, 0), { steps: 2 });
   * const { data } = await sampler.sample({ count: 2, seed: 1, labels: [3, 5] });
   * console.log(data.length); // 2 * 8 * 8 * 3
   * ```
   *
   * @throws {InputError} If labels are missing, superfluous or out of range, or other settings are.
   * @throws {DeviceError} If the device fails.
   * @throws {Error} If the network predicts NaN or infinity.
   * @returns The images; those that are done and what the network takes the others of their batch
   * for, if the signal stops it, which may be none.
   */
  async sample(options: SampleOptions = {}): Promise<Images> {
    const stream = this.#run(options, Infinity);
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return value;
    }
  }

  /**
   * Makes images and shows how they come about, batch by batch. One call at a time.
   *
   * @returns What {@linkcode Sampler.sample} returns.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseUNetConfig, Sampler } from "@x/ddpm";
   *
   * const config = parseUNetConfig({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
   *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(config, {}, 0), { steps: 4 });
   * for await (const { step, noisy, sample } of sampler.stream({ seed: 1, every: 2 })) {
   *   console.log(step, noisy.data[0], sample.data[0]); // 2 and 4
   * }
   * ```
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   * @throws {Error} If the network predicts NaN or infinity.
   */
  stream(options: StreamOptions = {}): AsyncGenerator<SamplingStep, Images> {
    const { every = 1 } = options;
    checkInteger(every, 1, "the number of steps between those that are shown");
    return this.#run(options, every);
  }

  async *#run(options: SampleOptions, every: number): AsyncGenerator<SamplingStep, Images> {
    const { count = 1, seed = 0, first = 0, labels, start, signal, onProgress } = options;
    checkInteger(count, 1, "the number of images");
    checkInteger(seed, 0, "the seed");
    checkInteger(first, 0, "the number of the first image");
    this.#checkLabels(labels, count);
    this.#checkStart(start, count);
    const [batch, height, width, channels] = this.#shape, each = height * width * channels;
    const images = (data: Float32Array<ArrayBuffer>): Images => ({
      ...{ count: data.length / each, height, width, channels, data },
    });
    const data = new Float32Array(count * each), batches = Math.ceil(count / batch);
    const { x, sample } = this.#programs.step.buffers;
    this.#programs.start.buffers.seed.write(seedWords(seed));
    const pace = new Pace(), ends = this.#ends;
    for (let b = 0; b < batches; b++) {
      const at = b * batch, here = Math.min(batch, count - at);
      const read = async (buffer: TensorBuffer) =>
        images(checkNumbers(await buffer.read(0, here * each)));
      this.#prepare(first + at, labels?.slice(at, at + here));
      if (start) x.write(start.data.subarray(at * each, (at + here) * each));
      for (let done = 0, step = 0; step < ends.length;) {
        if (signal?.aborted) {
          if (done) data.set((await read(sample)).data, at * each);
          return images(data.slice(0, (at + (done ? here : 0)) * each));
        }
        const next = Math.min(
          every === Infinity ? Infinity : step - step % every + every,
          ends.length,
        );
        const evaluations = pace.begin(ends[next - 1] - done);
        this.#programs.step.run(evaluations);
        done += evaluations;
        while (ends[step] <= done) step++;
        const isShown = every < Infinity && done === ends[next - 1];
        if (isShown) {
          const [noisy, estimate] = await Promise.all([x, sample].map(read));
          yield { index: at, step, steps: ends.length, noisy, sample: estimate };
        } else await this.#device.idle();
        onProgress?.(b * ends.length + step, batches * ends.length);
        await pace.end(evaluations);
      }
      data.set((await read(x)).data, at * each);
    }
    return images(data);
  }

  /** Draws the noise that a batch starts from, and forgets the last one. */
  #prepare(first: number, labels: readonly number[] | undefined): void {
    const { start, step } = this.#programs, [batch] = this.#shape;
    start.buffers.first.write([first]);
    step.buffers.index.write([0]);
    if (labels) {
      step.buffers.labels.write(Int32Array.from({ length: batch }, (_, i) => labels[i] ?? 0));
    }
    start.run();
  }

  #checkStart(start: Images | undefined, count: number): void {
    if (!start) {
      if (this.#method.isInverse) {
        throw new InputError(`Cannot sample by ${this.#method.name}: give the images to invert`);
      }
      return;
    }
    const [, ...sides] = this.#shape, given = [start.height, start.width, start.channels];
    if (start.count !== count || sides.some((n, i) => n !== given[i])) {
      throw new InputError(
        `Cannot start from ${start.count} images of ${given.join("x")}: ${count} of ` +
          `${sides.join("x")} are needed`,
      );
    }
  }

  #checkLabels(labels: readonly number[] | undefined, count: number): void {
    const classes = this.#classes;
    if (classes === undefined) {
      if (labels) throw new InputError("The model has no classes: labels make no sense");
      return;
    }
    if (labels?.length !== count) {
      throw new InputError(`The model has ${classes} classes: give a label for each image`);
    }
    const bad = labels.find((c) => !(Number.isInteger(c) && c >= 0 && c < classes));
    if (bad !== undefined) throw new InputError(`Label ${bad} is not one of 0 to ${classes - 1}`);
  }

  /** Frees its memory; the device, and parameters that it was given, live on. */
  [Symbol.dispose](): void {
    for (const resource of this.#owned.toReversed()) resource[Symbol.dispose]();
  }
}

function methodOf(name: MethodName = defaultMethod): Solver {
  if (Object.hasOwn(methods, name)) return methods[name];
  throw new InputError(
    `Cannot sample by ${name}: the methods are ${Object.keys(methods).join(", ")}`,
  );
}

/** @throws {Error} If there is NaN or infinity, or what the program wrote in its place. */
function checkNumbers(values: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>) {
  if (values.every((value) => Math.abs(value) < BROKEN / 10)) {
    return values as Float32Array<ArrayBuffer>;
  }
  throw new Error(
    "Cannot sample: the network predicts what is no number (NaN, or infinite); its weights are " +
      "damaged, its training diverged, or the sampler's noise levels are not those it knows",
  );
}

function checkInteger(value: number, least: number, what: string): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new InputError(
    `Cannot sample: ${what} is ${value}, but must be an integer from ${least} on`,
  );
}
