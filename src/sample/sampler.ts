/**
 * Sampling: a {@linkcode Sampler} is a model, a method and a number of steps compiled for a device.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { ProgramDescription } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { makeGraph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map } from "../gpu/ops/map.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { add } from "../gpu/expression.ts";
import { Pace } from "../gpu/pace.ts";
import { seedWords } from "../gpu/philox.ts";
import { sizeOf } from "../gpu/shape.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import type { Model } from "../model/model.ts";
import { sourceOf, viewParameters } from "../model/parameters.ts";
import { NoiseSchedule, type ScheduleConfig } from "../model/schedule.ts";
import { unet } from "../model/unet.ts";
import { ddim } from "./ddim.ts";
import { ddpm } from "./ddpm.ts";
import { denoise } from "./denoiser.ts";
import type { Method, MethodOptions, StepTable } from "./method.ts";

/** The name of a sampling method. */
export type MethodName = "ddpm" | "ddim";

/** All methods by name. */
export const methods: Readonly<Record<MethodName, Method>> = { ddpm, ddim };

/** Images as a network sees them. */
export interface Images {
  /** How many there are. */
  readonly count: number;
  /** Rows of each. */
  readonly height: number;
  /** Columns of each. */
  readonly width: number;
  /** Numbers a pixel: 1 for grey, 3 for red, green and blue. */
  readonly channels: number;
  /** `[count, height, width, channels]`, in [-1, 1]; more where x_t is still noisy. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** Streams of random numbers: what starts a trajectory, and what its steps add. */
const START_STREAM = 1, STEP_STREAM = 2;

/** Settings of a sampler. */
export interface SamplerOptions extends MethodOptions {
  /** `ddpm` is ancestral sampling, `ddim` is without noise. @default {"ddpm"} */
  readonly method?: MethodName;
  /** Evaluations of the network, 1 to T. @default {50} */
  readonly steps?: number;
  /** Images that are computed together; memory grows with it. @default {16} */
  readonly batchSize?: number;
  /** Height and width; by default those the model was made for. */
  readonly size?: readonly [height: number, width: number];
  /** The model's parameters on the device, if somebody else owns them there. */
  readonly parameters?: TensorBuffer;
}

/** Settings of one call. */
export interface SampleOptions {
  /** How many images to make. @default {1} */
  readonly count?: number;
  /** Image k of a seed is the same whatever the count and the batch size. @default {0} */
  readonly seed?: number;
  /** The number k of the first image. @default {0} */
  readonly first?: number;
  /** A class for each image, for models that have classes; integers in [0, classes). */
  readonly labels?: readonly number[];
  /** Stops between steps. */
  readonly signal?: AbortSignal;
  /** Is told how many of all steps of all batches are done. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Is given x_t, for how many steps were done; every `snapshotEvery` steps of the first batch. */
  readonly onSnapshot?: (images: Images, step: number) => void;
  /** Steps between two snapshots. @default {1} */
  readonly snapshotEvery?: number;
}

/** One step of a method around a network, as a function of tensors. */
export function samplingStep(
  schedule: ScheduleConfig,
  method: Method,
  table: StepTable,
  x: Tensor,
  index: Tensor,
  network: (x: Tensor, t: Tensor) => Tensor,
  noise: () => Tensor,
): Tensor {
  const names = Object.keys(table.columns), { alphasCumprod } = new NoiseSchedule(schedule);
  const bars = table.timesteps.map((t) => alphasCumprod[t]);
  const columns = [
    table.timesteps,
    bars.map(Math.sqrt),
    bars.map((bar) => Math.sqrt(1 - bar)),
    ...names.map((name) => table.columns[name]),
  ];
  const rows = table.timesteps.flatMap((_, i) => columns.map((column) => column[i]));
  const row = gather(constant(rows, [table.timesteps.length, columns.length]), index);
  const scalar = (i: number) => reshape(slice(row, 1, i, 1), [1, 1, 1, 1]);
  const t = broadcastTo(reshape(scalar(0), [1]), [x.shape[0]]);
  const level = { alpha: scalar(1), sigma: scalar(2) };
  const used = names.map((name, i) => [name, scalar(i + 3)] as const)
    .filter(([name]) => table.isStochastic || name !== "noise");
  return method.step(
    x,
    denoise(schedule, x, network(x, t), level),
    Object.fromEntries(used),
    noise,
  );
}

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
  readonly #start: Program;
  readonly #step: Program;
  readonly #owned: Disposable[];
  readonly #shape: readonly [number, number, number, number];
  readonly #steps: number;
  readonly #classes: number | undefined;

  private constructor(
    device: Device,
    start: Program,
    step: Program,
    owned: Disposable[],
    shape: readonly [number, number, number, number],
    steps: number,
    classes: number | undefined,
  ) {
    this.#device = device;
    this.#start = start;
    this.#step = step;
    this.#owned = owned;
    this.#shape = shape;
    this.#steps = steps;
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
    const { method = "ddpm", steps = 50, batchSize = 16, size = model.config.sampleSize } = options;
    const { config, layout } = model;
    if (!Object.hasOwn(methods, method)) {
      const names = Object.keys(methods).join(" and ");
      throw new InputError(`Cannot sample by ${method}: the methods are ${names}`);
    }
    checkInteger(batchSize, 1, "the batch size");
    if (!size) throw new InputError("The model is for images of any size: give one");
    for (const side of size) checkInteger(side, 1, "the height or width");
    if (config.classEmbedType !== null) {
      throw new InputError(
        `Cannot sample: networks with class_embed_type ${config.classEmbedType} are not supported`,
      );
    }
    if (config.inChannels !== config.outChannels) {
      throw new InputError(
        `Cannot sample: the network predicts ${config.outChannels} channels of images that have ` +
          `${config.inChannels}`,
      );
    }
    const shape = [batchSize, ...size, config.inChannels] as const;
    const schedule = new NoiseSchedule(model.schedule);
    const table = methods[method].plan(schedule, steps, options);

    const x = input("x", shape), index = input("index", [1], "i32");
    const random: RandomState = {
      seed: input("seed", [2], "i32"),
      first: input("first", [1], "i32"),
      step: index,
    };
    const labels = config.numClassEmbeds === null ? undefined : input("labels", [batchSize], "i32");
    const parameters = viewParameters(layout, input("parameters", [layout.size]));
    const next = samplingStep(
      model.schedule,
      methods[method],
      table,
      x,
      index,
      (sample, timestep) =>
        unet(config, sourceOf(parameters), {
          ...{ sample, timestep },
          ...(labels ? { classLabels: labels } : {}),
        }),
      () => randomNormal(shape, random, STEP_STREAM),
    );

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
      const buffers = {
        ...{ parameters: weights, x: own(device.buffer(sizeOf(shape))) },
        ...{ index: own(device.buffer(1, "i32")), first: own(device.buffer(1, "i32")) },
        seed: own(device.buffer(2, "i32")),
      };
      const start = own(
        await device.compile(
          makeGraph({}, [[x, randomNormal(shape, random, START_STREAM)]]),
          { label: "the start of sampling", buffers },
        ),
      );
      const step = own(
        await device.compile(
          makeGraph({}, [[x, next], [index, map([index], (i) => add(i, 1), "i32")]]),
          { label: "a sampling step", buffers, constant: ["parameters"] },
        ),
      );
      const classes = config.numClassEmbeds ?? undefined;
      return new Sampler(device, start, step, owned, shape, steps, classes);
    } catch (error) {
      for (const resource of owned.toReversed()) resource[Symbol.dispose]();
      throw error;
    }
  }

  /** Floating point operations of a step over a batch. */
  get flops(): number {
    return this.#step.flops;
  }

  /** What a step consists of. */
  describe(): ProgramDescription {
    return this.#step.describe();
  }

  /** Bytes that the programs took on the device, parameters not counted. */
  get memory(): number {
    return this.#start.memory + this.#step.memory;
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
   * @throws The signal's reason, if it is aborted.
   */
  async sample(options: SampleOptions = {}): Promise<Images> {
    const { count = 1, seed = 0, first = 0, labels, signal, onProgress } = options;
    const { snapshotEvery = 1 } = options;
    checkInteger(count, 1, "the number of images");
    checkInteger(seed, 0, "the seed");
    checkInteger(first, 0, "the number of the first image");
    checkInteger(snapshotEvery, 1, "the number of steps between snapshots");
    const [batch, height, width, channels] = this.#shape, each = height * width * channels;
    this.#checkLabels(labels, count);
    const data = new Float32Array(count * each), batches = Math.ceil(count / batch);
    const images = (count: number, data: Float32Array<ArrayBuffer>): Images => ({
      ...{ count, height, width, channels, data },
    });
    const { seed: seedBuffer, first: firstBuffer } = this.#start.buffers;
    const { index, x } = this.#step.buffers;
    seedBuffer.write(seedWords(seed));
    const pace = new Pace();
    for (let b = 0; b < batches; b++) {
      const here = Math.min(batch, count - b * batch);
      firstBuffer.write([first + b * batch]);
      index.write([0]);
      if (labels) {
        this.#step.buffers.labels.write(
          Int32Array.from({ length: batch }, (_, i) => labels[b * batch + i] ?? 0),
        );
      }
      this.#start.run();
      const every = b === 0 && options.onSnapshot ? snapshotEvery : Infinity;
      for (let done = 0; done < this.#steps;) {
        signal?.throwIfAborted();
        const untilSnapshot = every === Infinity ? every : every - done % every;
        const steps = pace.begin(Math.min(this.#steps - done, untilSnapshot));
        this.#step.run(steps);
        done += steps;
        if (done % every === 0 && options.onSnapshot) {
          const values = await x.read(0, here * each);
          options.onSnapshot(images(here, values as Float32Array<ArrayBuffer>), done);
        } else await this.#device.idle();
        onProgress?.(b * this.#steps + done, batches * this.#steps);
        await pace.end(steps);
      }
      const values = await x.read(0, here * each);
      data.set(values, b * batch * each);
    }
    return images(count, data);
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

function checkInteger(value: number, least: number, what: string): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new InputError(
    `Cannot sample: ${what} is ${value}, but must be an integer from ${least} on`,
  );
}
