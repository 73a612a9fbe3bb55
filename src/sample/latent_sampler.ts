/**
 * Sampling by models of latents: a {@linkcode LatentSampler} takes pictures and makes pictures, as a
 * `Sampler` does by a model of pixels.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { ProgramDescription } from "../gpu/describe.ts";
import type { Device } from "../gpu/device.ts";
import type { Model } from "../model/model.ts";
import type { AutoencoderNetwork } from "../model/network.ts";
import type { Weighted } from "../model/weights.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { Autoencoder, type EncodeOptions } from "./autoencoder.ts";
import { fittingBatch } from "./fitting_batch.ts";
import { keepKnown, latentMasks } from "./latent_pictures.ts";
import type {
  SampleOptions,
  SamplerOptions,
  Samples,
  SamplingStep,
  StreamOptions,
} from "./options.ts";
import { Sampler } from "./sampler.ts";

/** How far the latents of a batch are. */
export interface LatentStep extends SamplingStep {
  /** What `sample` looks like, in [-1, 1]. */
  pictures(): Promise<Samples>;
}

/** Conditions that are masks of pixels. */
const MASKS = ["mask", "region"] as const;

/** The shape of the pictures that a model's items of a shape are, or become; sides may be open. */
export function paintedShape<Side extends number | null>(
  { autoencoder }: Pick<Model, "autoencoder">,
  shape: readonly Side[],
): readonly (Side | number)[] {
  if (!autoencoder) return shape;
  const { factor, itemShape } = autoencoder.network, [height, width] = shape;
  const painted = (side: Side) => side === null ? side : side * factor;
  return [painted(height), painted(width), itemShape.at(-1)!];
}

/**
 * A model of latents, its autoencoder, a method and a number of steps, compiled. Dispose of it to free
 * its memory.
 *
 * Pictures are what `init`, the conditions `known` and, a number a pixel, `mask` and `region` are
 * about; noise is of latents, as `start`. What `mask` keeps are latents, so that decoding may change
 * pixels there a little.
 *
 * @example
 * ```ts
 * import { autoencoderNetwork, initializeModel, initializeNetwork, LatentSampler, openDevice,
 *   parseNetwork } from "@x/ddpm";
 *
 * const denoiser = parseNetwork({ sample_size: 8, in_channels: 4, out_channels: 4,
 *   block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const autoencoder = autoencoderNetwork(parseNetwork({ _class_name: "AutoencoderKL",
 *   block_out_channels: [8, 8], norm_num_groups: 4, latent_channels: 4,
 *   down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
 *   up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"] }));
 * const model = { ...initializeModel(denoiser, { clip_sample: false }, 0),
 *   autoencoder: initializeNetwork(autoencoder, 0) };
 * using device = await openDevice("cpu");
 * using sampler = await LatentSampler.create(device, model, { steps: 3 });
 * const { shape } = await sampler.sample({ count: 2, seed: 7 });
 * console.log(shape); // [16, 16, 3]
 * ```
 */
export class LatentSampler implements Disposable {
  /** The shape of pictures, `[height, width, channels]`. */
  readonly itemShape: Shape;
  readonly #device: Device;
  readonly #autoencoder: Weighted<AutoencoderNetwork>;
  readonly #sampler: Sampler;
  readonly #decoder: Autoencoder;
  /** Compiled when it is needed. */
  #encoder: Promise<Autoencoder> | undefined;

  private constructor(
    device: Device,
    autoencoder: Weighted<AutoencoderNetwork>,
    sampler: Sampler,
    decoder: Autoencoder,
  ) {
    this.itemShape = decoder.pictureShape;
    this.#device = device;
    this.#autoencoder = autoencoder;
    this.#sampler = sampler;
    this.#decoder = decoder;
  }

  /**
   * Compiles a sampler, and what decodes its latents, as many at a time as fit the device.
   *
   * @throws {InputError} If the settings do not fit the model, or it is none of latents.
   * @throws {DeviceError} If it does not fit the device.
   */
  static async create(
    device: Device,
    model: Model,
    options: SamplerOptions = {},
  ): Promise<LatentSampler> {
    const { autoencoder } = model;
    if (!autoencoder) {
      throw new InputError("Cannot decode latents: the model has no autoencoder; use a Sampler");
    }
    using stack = new DisposableStack();
    const sampler = stack.use(await Sampler.create(device, model, options));
    const [height, width] = paintedShape(model, sampler.itemShape);
    const decoder = stack.use(
      await fittingBatch(
        options.batchSize ?? 16,
        (batchSize) =>
          Autoencoder.create(device, autoencoder, {
            ...{ size: [height, width], batchSize, only: "decode" },
          }),
      ),
    );
    stack.move();
    return new LatentSampler(device, autoencoder, sampler, decoder);
  }

  /** The shape of latents, `[height, width, channels]`. */
  get latentShape(): Shape {
    return this.#decoder.latentShape;
  }

  /** Steps of a run. */
  get steps(): number {
    return this.#sampler.steps;
  }

  /** Evaluations of the network in a run. */
  get evaluations(): number {
    return this.#sampler.evaluations;
  }

  /** Bytes that the programs took on the device, parameters not counted. */
  get memory(): number {
    return this.#sampler.memory + this.#decoder.memory;
  }

  /** What a step consists of. */
  describe(): ProgramDescription {
    return this.#sampler.describe();
  }

  /**
   * Makes pictures, as {@linkcode Sampler.sample}. Calls at the same time take turns.
   *
   * @throws As {@linkcode Sampler.sample}, and {@linkcode InputError} if a mask is too fine for latents.
   */
  async sample(options: SampleOptions = {}): Promise<Samples> {
    const encoded = await this.#inLatents(options);
    return await this.#finish(await this.#sampler.sample(encoded), encoded);
  }

  /**
   * Makes pictures and shows how their latents come about, as {@linkcode Sampler.stream}.
   *
   * @throws As {@linkcode LatentSampler.sample}.
   */
  async *stream(options: StreamOptions = {}): AsyncGenerator<LatentStep, Samples> {
    const encoded = await this.#inLatents(options);
    const stream = this.#sampler.stream(encoded);
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return await this.#finish(value, encoded);
      yield { ...value, pictures: () => this.decode(value.sample) };
    }
  }

  /** The pictures of latents, within [-1, 1]: decoders overshoot. */
  async decode(latents: Samples): Promise<Samples> {
    const pictures = await this.#decoder.decode(latents);
    return { ...pictures, data: pictures.data.map((x) => Math.max(-1, Math.min(1, x))) };
  }

  async #encode(pictures: Samples, options: EncodeOptions): Promise<Samples> {
    const [height, width] = this.itemShape;
    this.#encoder ??= Autoencoder.create(this.#device, this.#autoencoder, {
      ...{ size: [height, width], only: "encode" },
    });
    return await (await this.#encoder).encode(pictures, options);
  }

  /** What is told of pictures, told of latents. */
  async #inLatents<T extends SampleOptions>(options: T): Promise<T> {
    const { init, seed = 0, first = 0 } = options, conditions = { ...options.conditions };
    const encode = (pictures: Samples) =>
      this.#encode(pictures, { seed, first: pictures.count === 1 ? 0 : first });
    for (const name of MASKS) {
      const { [name]: mask } = conditions, { factor } = this.#autoencoder.network;
      if (mask) conditions[name] = latentMasks(mask, this.itemShape, factor, `The ${name}`);
    }
    const begun = init && await encode(init), { known } = conditions;
    if (known) {
      const data = Float32Array.from(known), count = data.length / sizeOf(this.itemShape);
      conditions.known = begun && known === init?.data
        ? begun.data
        : (await encode({ count, shape: this.itemShape, data })).data;
    }
    return { ...options, ...(begun ? { init: begun } : {}), conditions };
  }

  /** Decodes what is done; what was to be kept is as it was. */
  async #finish(latents: Samples, { conditions: { known, mask } = {} }: SampleOptions) {
    if (!latents.count) return { ...latents, shape: this.itemShape };
    const { latentShape: shape } = this;
    const kept = known && mask
      ? keepKnown(
        latents,
        { count: known.length / sizeOf(shape), shape, data: Float32Array.from(known) },
        mask,
      )
      : latents;
    return await this.decode(kept);
  }

  /** Frees its memory; the device lives on. */
  [Symbol.dispose](): void {
    this.#sampler[Symbol.dispose]();
    this.#decoder[Symbol.dispose]();
    this.#encoder?.then((encoder) => encoder[Symbol.dispose](), () => {});
  }
}
