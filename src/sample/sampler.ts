/**
 * Sampling: a {@linkcode Sampler} is a model, a method and a number of steps compiled for a device.
 *
 * @module
 */

import type { Denoiser } from "../diffusion/denoiser.ts";
import { InputError } from "../errors.ts";
import type { Excess, ProgramDescription } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { seedWords } from "../gpu/philox.ts";
import { Pace } from "../gpu/step_pacer.ts";
import type { Model } from "../model/model.ts";
import { Mutex } from "../mutex.ts";
import { sameShape, type Shape, sizeOf } from "../shape.ts";
import { checkConditions, writeConditions } from "./conditions.ts";
import { checkNumbers } from "./health.ts";
import {
  checkInteger,
  type SampleOptions,
  type SamplerOptions,
  type Samples,
  type SamplingStep,
  type StreamOptions,
  strengthOf,
} from "./options.ts";
import {
  activeOf,
  compileSampling,
  planSampling,
  type SamplingPrograms,
} from "./sampling_programs.ts";
import type { UpdateTable } from "./solver.ts";
import { encodeTable } from "./step.ts";
import { tableOf } from "./timesteps.ts";

/** What a run starts from, how much of that and of noise it takes, and its evaluations. */
interface Beginning {
  readonly table: UpdateTable;
  readonly from: Samples | undefined;
  readonly level: readonly [alpha: number, sigma: number];
}

/** A run that was interrupted by another one, and what it had computed. */
interface Run {
  kept?: (readonly [name: string, values: ArrayLike<number>])[];
}

/**
 * A model, a method and a number of steps, compiled. Dispose of it to free its memory.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
 *
 * const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(network, {}, 0);
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
  readonly #parts: SamplingPrograms;
  /** How many evaluations are done after each step. */
  readonly #ends: readonly number[];
  readonly #mutex = new Mutex();
  /** Whose numbers lie in the buffers. */
  #resident: Run | undefined;

  private constructor(parts: SamplingPrograms) {
    this.#parts = parts;
    this.#ends = endsOf(parts.table);
  }

  /**
   * Compiles a sampler.
   *
   * @throws {InputError} If the settings do not fit the model.
   * @throws {DeviceError} If it does not fit the device.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
   *
   * const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
   *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(network, {}, 0), { steps: 2 });
   * const images = await sampler.sample({ count: 1, seed: 1 });
   * console.log(images.data.length); // 8 * 8 * 3
   * ```
   */
  static async create(
    device: Device,
    model: Model | Denoiser,
    options: SamplerOptions = {},
  ): Promise<Sampler> {
    return new Sampler(await compileSampling(device, model, options));
  }

  /**
   * The bytes of the device that a sampler would take, weights included; nothing is allocated.
   * `excess` says why they cannot be had, if so.
   */
  static plan(
    device: Device,
    model: Model | Denoiser,
    options: SamplerOptions = {},
  ): { readonly bytes: number; readonly excess?: Excess } {
    return planSampling(device, model, options);
  }

  /** The shape of what it makes. */
  get itemShape(): Shape {
    return this.#parts.denoiser.itemShape;
  }

  /** Steps of a run. */
  get steps(): number {
    return this.#ends.length;
  }

  /** Evaluations of the network in a run. */
  get evaluations(): number {
    return this.#ends[this.#ends.length - 1];
  }

  /** The program that does most. */
  get #step(): Program {
    return [...this.#parts.steps.values()].reduce((a, b) => b.flops > a.flops ? b : a);
  }

  /** Floating point operations of an evaluation over a batch, the most that there are. */
  get flops(): number {
    return this.#step.flops;
  }

  /** What a step consists of. */
  describe(): ProgramDescription {
    return this.#step.describe();
  }

  /** Bytes that the programs took on the device, parameters not counted. */
  get memory(): number {
    return [this.#parts.start, ...this.#parts.steps.values()].reduce((n, p) => n + p.memory, 0);
  }

  /**
   * Makes items. Calls at the same time take turns: a sampler has one place to compute in.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
   *
   * const network = parseNetwork({ sample_size: 8, num_class_embeds: 10, block_out_channels: [8],
   *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(network, {}, 0), { steps: 2 });
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
  async sample(options: SampleOptions = {}): Promise<Samples> {
    const stream = this.#run(options, Infinity);
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return value;
    }
  }

  /**
   * Makes items and shows how they come about, batch by batch. Other calls may be made meanwhile,
   * which then take turns with it.
   *
   * @returns What {@linkcode Sampler.sample} returns.
   *
   * @example
   * ```ts
   * import { initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
   *
   * const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
   *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
   * using device = await openDevice("cpu");
   * using sampler = await Sampler.create(device, initializeModel(network, {}, 0), { steps: 4 });
   * for await (const { step, noisy, sample } of sampler.stream({ seed: 1, every: 2 })) {
   *   console.log(step, noisy.data[0], sample.data[0]); // 2 and 4
   * }
   * ```
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   * @throws {Error} If the network predicts NaN or infinity.
   */
  stream(options: StreamOptions = {}): AsyncGenerator<SamplingStep, Samples> {
    const { every = 1 } = options;
    checkInteger(every, 1, "the number of steps between those that are shown");
    return this.#run(options, every);
  }

  async *#run(options: SampleOptions, every: number): AsyncGenerator<SamplingStep, Samples> {
    const { count = 1, seed = 0, first = 0, start, signal, onProgress } = options;
    checkInteger(count, 1, "the number of images");
    checkInteger(seed, 0, "the seed");
    checkInteger(first, 0, "the number of the first image");
    checkConditions(this.#parts.denoiser.conditions, options, count);
    this.#checkStart(start, count);
    const begun = this.#begin(options, count), { table } = begun, ends = endsOf(table);
    const { device, denoiser: { itemShape: shape }, batchSize, wrappers } = this.#parts;
    const each = sizeOf(shape), batches = Math.ceil(count / batchSize);
    const samples = (data: Float32Array<ArrayBuffer>): Samples => ({
      ...{ count: data.length / each, shape, data },
    });
    const data = new Float32Array(count * each), { x, sample } = this.#parts.buffers;
    if (!table.length) return samples(repeat(begun.from!, count));
    const active = table.map((row) => activeOf(wrappers, row));
    /** Evaluations from one on that the same program does. */
    const alike = (from: number) => {
      const next = active.findIndex((a, i) => i > from && a !== active[from]);
      return (next < 0 ? active.length : next) - from;
    };
    const pace = new Pace(device), run: Run = {};
    using _run = { [Symbol.dispose]: () => this.#leave(run) };
    for (let b = 0; b < batches; b++) {
      const at = b * batchSize, here = Math.min(batchSize, count - at);
      const read = async (buffer: TensorBuffer) =>
        samples(checkNumbers(await buffer.read(0, here * each), "sample"));
      for (let done = 0, step = 0; step < ends.length;) {
        let shown: SamplingStep | undefined;
        {
          using _ = await this.#mutex.acquire();
          const isNew = await this.#settle(run);
          if (isNew || !done) this.#write(options, begun, { count, first: at, here }, done);
          if (!done) {
            const { from } = begun;
            for (let i = 0; from && i < here; i++) {
              const k = from.count === 1 ? 0 : at + i;
              x.write(from.data.subarray(k * each, (k + 1) * each), i * each);
            }
            this.#parts.start.run();
          } else if (isNew) this.#restore(run);
          // Others may have their turn where this run shows something, and only there.
          while (step < ends.length && !shown) {
            if (signal?.aborted) {
              if (done) data.set((await read(sample)).data, at * each);
              return samples(data.slice(0, (at + (done ? here : 0)) * each));
            }
            const next = Math.min(
              every === Infinity ? Infinity : step - step % every + every,
              ends.length,
            );
            const evaluations = pace.begin(Math.min(ends[next - 1] - done, alike(done)));
            this.#stepFor(active[done]).run(evaluations);
            done += evaluations;
            while (ends[step] <= done) step++;
            if (every < Infinity && done === ends[next - 1]) {
              const [noisy, estimate] = await Promise.all([x, sample].map(read));
              shown = { index: at, step, steps: ends.length, noisy, sample: estimate };
            } else await device.idle();
            onProgress?.(b * ends.length + step, batches * ends.length);
            await pace.end(evaluations);
          }
          if (step === ends.length) data.set((await read(x)).data, at * each);
        }
        if (shown) yield shown;
      }
    }
    return samples(data);
  }

  /** The program for a set of wrappers. */
  #stepFor(active: string): Program {
    const program = this.#parts.steps.get(active);
    if (program) return program;
    throw new InputError(
      "Cannot begin in the middle: its noise levels are not those of a whole run, and wrappers are " +
        "active at some of them only",
    );
  }

  /** Nothing of a run is needed any more. */
  #leave(run: Run): void {
    if (this.#resident === run) this.#resident = undefined;
  }

  /** Makes the buffers a run's; returns whether they were another one's, whose numbers are kept. */
  async #settle(run: Run): Promise<boolean> {
    const other = this.#resident;
    if (other === run) return false;
    if (other) {
      other.kept = await Promise.all(
        this.#parts.states.map(async (name) =>
          [name, await this.#parts.buffers[name].read()] as const
        ),
      );
    }
    this.#resident = run;
    return true;
  }

  /** Writes back what was kept of a run. */
  #restore(run: Run): void {
    for (const [name, values] of run.kept ?? []) this.#parts.buffers[name].write(values);
    delete run.kept;
  }

  /** What a run starts from, and its evaluations. */
  #begin(given: SampleOptions, count: number): Beginning {
    const { start, init, cutsTimesteps = false } = given;
    const { table, method, denoiser: { schedule, itemShape }, walk, options } = this.#parts;
    if (start) return { table, from: start, level: [1, 0] };
    if (!init) return { table, from: undefined, level: [0, 1] };
    const strength = strengthOf({ strength: given.strength });
    checkInit(init, strength, count, itemShape);
    if (method.isInverse) {
      throw new InputError(`Cannot begin with an image by ${method.name}: it goes to noise`);
    }
    const skip = given.skip ?? walk.length - Math.round(strength * walk.length);
    checkInteger(skip, 0, "the number of steps that are left out");
    const steps = walk.slice(skip);
    if (!steps.length) return { table: [], from: init, level: [1, 0] };
    const cut = cutsTimesteps ? method.planCut?.(walk, schedule, skip) : undefined;
    const part = cut ?? tableOf(method, schedule, steps, options);
    const from = cut ? cut[0].at : steps[0].from,
      isPure = given.skip === undefined && strength === 1;
    const level = isPure ? [0, 1] as const : [from.alpha, from.sigma] as const;
    return { table: part, from: init, level };
  }

  /** Writes what a batch is told. */
  #write(
    options: SampleOptions,
    { table, level }: Beginning,
    place: { readonly count: number; readonly first: number; readonly here: number },
    done: number,
  ): void {
    const { buffers, denoiser, layout } = this.#parts;
    buffers.seed.write(seedWords(options.seed ?? 0));
    buffers.first.write([(options.first ?? 0) + place.first]);
    buffers.index.write([done]);
    // A table that is shorter than the compiled one leaves its last rows alone.
    buffers.table.write(encodeTable(layout, table));
    buffers.startLevel.write(level);
    writeConditions(buffers, denoiser.conditions, options, place);
  }

  #checkStart(start: Samples | undefined, count: number): void {
    const { method, denoiser: { itemShape } } = this.#parts;
    if (!start) {
      if (method.isInverse) {
        throw new InputError(`Cannot sample by ${method.name}: give the images to invert`);
      }
      return;
    }
    if (start.count === count && sameShape(start.shape, itemShape)) return;
    throw new InputError(
      `Cannot start from ${start.count} images of ${start.shape.join("x")}: ${count} of ` +
        `${itemShape.join("x")} are needed`,
    );
  }

  /** Frees its memory; the device, and parameters that it was given, live on. */
  [Symbol.dispose](): void {
    for (const resource of this.#parts.owned.toReversed()) resource[Symbol.dispose]();
  }
}

/** How many evaluations are done after each step. */
const endsOf = (table: UpdateTable): number[] =>
  table.flatMap(({ endsStep = true }, i) => endsStep ? [i + 1] : []);

/** As many items as are wanted, of one or of so many. */
function repeat({ count: given, data }: Samples, count: number): Float32Array<ArrayBuffer> {
  const each = data.length / given;
  return Float32Array.from({ length: count * each }, (_, i) => data[i % data.length]);
}

/** @throws {InputError} If it cannot be begun with. */
function checkInit(init: Samples, strength: number, count: number, item: Shape): void {
  if (!(strength >= 0 && strength <= 1)) {
    throw new InputError(`Cannot sample with strength ${strength}: it lies between 0 and 1`);
  }
  if ((init.count === 1 || init.count === count) && sameShape(init.shape, item)) return;
  throw new InputError(
    `Cannot begin with ${init.count} images of ${init.shape.join("x")}: 1 or ${count} of ` +
      `${item.join("x")} are needed`,
  );
}
