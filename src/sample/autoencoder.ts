/**
 * Pictures as latents and back: an {@linkcode Autoencoder} is one of latent diffusion's networks
 * compiled for pictures of a size, or for tiles of larger ones.
 *
 * @module
 */

import { weightBuffer, writeWeights } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import { isAllFinite } from "../formats/elements.ts";
import type { Excess } from "../gpu/describe.ts";
import type { Device, TensorBuffer } from "../gpu/device.ts";
import { inputName } from "../gpu/tensor.ts";
import { fourNormals, philox, seedWords } from "../gpu/philox.ts";
import { type AutoencoderNetwork, itemOf } from "../model/network.ts";
import { parameterInputs, type WeightDType } from "../model/parameters.ts";
import { selectParameters, type Weighted, weightsOf } from "../model/weights.ts";
import type { Latents } from "../data/latents.ts";
import { Mutex } from "../mutex.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../shape.ts";
import { graphsOf, type Half, layoutOf } from "./autoencoder_graphs.ts";
import type { Samples } from "./options.ts";
import { TiledProgram } from "./tiled_program.ts";

/** The stream of random numbers that latents are drawn by. */
const STREAM = 60;

/** Settings of an autoencoder. */
export interface AutoencoderOptions {
  /** Height and width of the pictures, multiples of the network's `factor`. */
  readonly size: readonly [height: number, width: number];
  /** Pictures, or tiles of them, that are computed together; memory grows with it. @default {1} */
  readonly batchSize?: number;
  /**
   * The longest side, in pixels, that is computed in one piece; larger pictures are computed in tiles
   * of it, which overlap by a quarter or more and fade into each other. A multiple of `factor`. It
   * bounds the memory; colours may differ slightly from those of a whole picture, since
   * normalisation and attention see a tile only. By default there are no tiles.
   */
  readonly tile?: number;
  /** The only half to compile; by default both are. */
  readonly only?: "encode" | "decode";
  /** How the weights lie on the device. @default {"f32"} */
  readonly weightDType?: WeightDType;
  /** Weights that are on the device already, by the names of their inputs, as a trainer's average. */
  readonly parameters?: Readonly<Record<string, TensorBuffer>>;
}

/** Settings of one call. */
export interface LatentOptions {
  /** Stops between batches, with its reason as the error. */
  readonly signal?: AbortSignal;
  /** Is told how many of all pictures or tiles are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Settings of encoding. */
export interface EncodeOptions extends LatentOptions {
  /**
   * Whether latents are drawn from the distributions that the encoder tells, as those are that
   * denoisers of latents learn from; otherwise they are its means, as they always are with a
   * codebook. @default {true}
   */
  readonly sample?: boolean;
  /** Latents of picture k of a seed are the same whatever the count and the batch. @default {0} */
  readonly seed?: number;
  /** The number k of the first picture. @default {0} */
  readonly first?: number;
  /** Standard normals `[count, ...latentShape]` in place of those that the seed gives. */
  readonly noise?: Float32Array;
}

/** Latents by the entries of a codebook. */
export interface Codes {
  /** The nearest entries, scaled as latents are. */
  readonly quantized: Samples;
  /** Their numbers, `[count, height, width]`. */
  readonly indices: Int32Array<ArrayBuffer>;
}

/** Pixels of a piece above which transforming weights anew costs little, and keeping them much. */
const LARGE = 256 * 256;

/**
 * Whether weights are kept transformed for convolutions: four times as much memory. Decoding 512x512
 * pixels with the autoencoder of Stable Diffusion takes 0.6 GB without that, and 1.4 GB with it.
 */
const worthPreparing = ({ size, tile = Infinity }: AutoencoderOptions): boolean =>
  size.reduce((pixels, side) => pixels * Math.min(side, tile), 1) < LARGE;

/**
 * An autoencoder, compiled. Dispose of it to free its memory.
 *
 * Latents are as denoisers see them: (z - shiftFactor) · scalingFactor, with z what the network knows.
 *
 * @example
 * ```ts
 * import { Autoencoder, autoencoderNetwork, initializeNetwork, openDevice, parseNetwork } from "@x/ddpm";
 *
 * const network = autoencoderNetwork(parseNetwork({ _class_name: "AutoencoderKL",
 *   block_out_channels: [8, 8], norm_num_groups: 4, latent_channels: 4,
 *   down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
 *   up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"] }));
 * using device = await openDevice("cpu");
 * using autoencoder = await Autoencoder.create(device, initializeNetwork(network, 0), {
 *   size: [16, 24],
 * });
 * const pictures = { count: 1, shape: [16, 24, 3], data: new Float32Array(16 * 24 * 3) };
 * const latents = await autoencoder.encode(pictures, { seed: 1 });
 * console.log(latents.shape, (await autoencoder.decode(latents)).shape); // [8, 12, 4], [16, 24, 3]
 * ```
 */
export class Autoencoder implements Disposable {
  /** The shape of pictures, `[height, width, channels]`. */
  readonly pictureShape: Shape;
  /** The shape of latents, `[height, width, channels]`. */
  readonly latentShape: Shape;
  readonly #network: AutoencoderNetwork;
  readonly #programs = new Map<Half, TiledProgram>();
  readonly #owned: Disposable[] = [];
  readonly #turns = new Mutex();

  private constructor(network: AutoencoderNetwork, { size }: AutoencoderOptions) {
    this.#network = network;
    this.pictureShape = itemOf(network, size);
    this.latentShape = [...size.map((n) => n / network.factor), network.latentChannels];
  }

  /**
   * Compiles an autoencoder and writes its weights.
   *
   * @throws {InputError} If the settings do not fit the network.
   * @throws {LimitError} If it does not fit the device: before memory is taken for it.
   * @throws {DeviceError} If the device fails.
   */
  static async create(
    device: Device,
    autoencoder: Weighted<AutoencoderNetwork>,
    options: AutoencoderOptions,
  ): Promise<Autoencoder> {
    const { network } = autoencoder, { weightDType = "f32" } = options;
    const layout = layoutOf(network, options);
    const graphs = graphsOf(network, layout, options), made = new Autoencoder(network, options);
    const own = <T extends Disposable>(resource: T): T => {
      made.#owned.push(resource);
      return resource;
    };
    try {
      const buffers: Record<string, TensorBuffer> = {};
      const weights = Object.entries(weightsOf(
        layout === network.layout
          ? autoencoder
          : { network: { layout }, parameters: selectParameters(autoencoder, layout) },
        "parameters",
        weightDType,
      ));
      for (const [name, values] of weights) {
        buffers[name] = options.parameters?.[name] ?? own(weightBuffer(device, values));
      }
      for (const { half, graph, uses, ...tiling } of graphs) {
        const used = Object.entries(buffers).filter(([name]) => uses.has(name));
        const program = await device.compile(graph, {
          ...{ label: `to ${half} pictures`, buffers: Object.fromEntries(used) },
          constant: worthPreparing(options) ? used.map(([name]) => name) : [],
        });
        made.#programs.set(half, new TiledProgram(own(program), tiling));
      }
      for (const [name, values] of weights) {
        if (!options.parameters?.[name]) writeWeights(values, buffers[name]);
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The memory of the device that an autoencoder would take, weights included, in bytes; nothing is
   * allocated. `excess` says why it cannot be had, if it cannot.
   *
   * @throws {InputError} If the settings do not fit the network.
   */
  static plan(
    device: Device,
    network: AutoencoderNetwork,
    options: AutoencoderOptions,
  ): { readonly bytes: number; readonly excess?: Excess } {
    const layout = layoutOf(network, options);
    const shards = parameterInputs(layout, "parameters", options.weightDType);
    const bytesOf = (names: ReadonlySet<string>) =>
      shards.reduce((n, x) => n + (names.has(inputName(x)!) ? 4 * sizeOf(x.shape) : 0), 0);
    const graphs = graphsOf(network, layout, options);
    const names = shards.map((x) => inputName(x)!);
    const plans = graphs.map(({ graph, uses }) =>
      device.plan(graph, {
        constant: worthPreparing(options) ? names.filter((name) => uses.has(name)) : [],
      })
    );
    const all = bytesOf(new Set(graphs.flatMap(({ uses }) => [...uses])));
    const excess = plans.find((plan) => plan.excess)?.excess;
    return {
      bytes: plans.reduce((n, { bytes }, i) => n + bytes - bytesOf(graphs[i].uses), all),
      ...(excess ? { excess } : {}),
    };
  }

  /** Bytes that the programs took on the device, weights not counted. */
  get memory(): number {
    return [...this.#programs.values()].reduce((n, { memory }) => n + memory, 0);
  }

  /**
   * The latents of pictures in [-1, 1]. Calls at the same time take turns.
   *
   * @throws {InputError} If they are not of the size that it was compiled for.
   * @throws {Error} If the network gives numbers that are not finite; the signal's reason, if it is
   * aborted.
   * @throws {DeviceError} If the device fails.
   */
  async encode(pictures: Samples, options: EncodeOptions = {}): Promise<Samples> {
    const { sample = true, noise } = options, size = pictures.count * sizeOf(this.latentShape);
    if (noise && noise.length !== size) {
      throw new InputError(`Cannot encode by ${noise.length} numbers of noise: it takes ${size}`);
    }
    const { mean, logVariance } = await this.latents(pictures, options);
    if (sample && logVariance) {
      const drawn = noise ?? this.#draw(pictures.count, options);
      for (let i = 0; i < mean.length; i++) mean[i] += Math.exp(logVariance[i] / 2) * drawn[i];
    }
    const { scalingFactor, shiftFactor } = this.#network;
    return {
      ...{ count: pictures.count, shape: this.latentShape },
      data: mean.map((z) => (z - shiftFactor) * scalingFactor),
    };
  }

  /**
   * What the encoder tells of pictures in [-1, 1]: latents as the network knows them, not scaled.
   * `latentDataset()` makes a data set of them. Calls at the same time take turns.
   *
   * @throws As {@linkcode Autoencoder.encode}.
   */
  async latents(pictures: Samples, options: LatentOptions = {}): Promise<Latents> {
    this.#check(pictures, this.pictureShape, "encode pictures");
    const { mean, logVariance } = await this.#run("encode", pictures, options);
    return { shape: this.latentShape, mean, ...(logVariance ? { logVariance } : {}) };
  }

  /**
   * The pictures of latents: in [-1, 1], but for overshoot, which stays. With a codebook, latents are
   * replaced by its nearest entries first. Calls at the same time take turns.
   *
   * @throws As {@linkcode Autoencoder.encode}.
   */
  async decode(latents: Samples, options: LatentOptions = {}): Promise<Samples> {
    this.#check(latents, this.latentShape, "decode latents");
    const { pictures } = await this.#run("decode", this.#unscaled(latents), options);
    return { count: latents.count, shape: this.pictureShape, data: pictures };
  }

  /**
   * The entries of the codebook that are nearest to latents.
   *
   * @throws {InputError} If the network has no codebook; else as {@linkcode Autoencoder.encode}.
   */
  async quantize(latents: Samples, options: LatentOptions = {}): Promise<Codes> {
    if (!this.#network.quantize) {
      throw new InputError(
        `Cannot quantise latents: ${this.#network.className} has no codebook, as VQModel has`,
      );
    }
    this.#check(latents, this.latentShape, "quantise latents");
    const found = await this.#run("quantize", this.#unscaled(latents), options);
    const { scalingFactor, shiftFactor } = this.#network;
    const data = found.quantized.map((z) => (z - shiftFactor) * scalingFactor);
    return {
      quantized: { count: latents.count, shape: this.latentShape, data },
      indices: Int32Array.from(found.indices),
    };
  }

  /** Frees its memory; the device lives on. */
  [Symbol.dispose](): void {
    for (const resource of this.#owned.toReversed()) resource[Symbol.dispose]();
    this.#owned.length = 0;
  }

  async #run(half: Half, samples: Samples, options: LatentOptions) {
    const program = this.#programs.get(half);
    if (!program) throw new InputError(`Cannot ${half}: the autoencoder was compiled without that`);
    using _turn = await this.#turns.acquire();
    const results = await program.run(samples, options);
    if (Object.values(results).every(isAllFinite)) return results;
    throw new Error(
      `Cannot ${half}: the network gives numbers that are not finite; its weights are damaged, or ` +
        "too large for the device",
    );
  }

  /** Latents as the network knows them. */
  #unscaled(latents: Samples): Samples {
    const { scalingFactor, shiftFactor } = this.#network;
    return { ...latents, data: latents.data.map((x) => x / scalingFactor + shiftFactor) };
  }

  /** Standard normals, a pure function of seed and number of the picture. */
  #draw(count: number, { seed = 0, first = 0 }: EncodeOptions): Float32Array<ArrayBuffer> {
    const size = sizeOf(this.latentShape), noise = new Float32Array(count * size);
    const [low, high] = seedWords(seed), words = new Uint32Array(4);
    for (let k = 0; k < count; k++) {
      for (let i = 0; i < size; i += 4) {
        philox([i / 4, first + k, 0, STREAM], [low, high], words);
        const four = fourNormals(words);
        noise.set(four.slice(0, size - i), k * size + i);
      }
    }
    return noise;
  }

  /** @throws {InputError} If items are not of a shape, or hold what is no number. */
  #check({ count, shape, data }: Samples, wanted: Shape, what: string): void {
    if (!sameShape(shape, wanted)) {
      throw new InputError(
        `Cannot ${what} of shape ${formatShape(shape)}: the autoencoder was compiled for ` +
          formatShape(wanted),
      );
    }
    if (count < 1 || data.length !== count * sizeOf(shape)) {
      throw new InputError(
        `Cannot ${what}: ${count} of shape ${formatShape(shape)} are ` +
          `${count * sizeOf(shape)} numbers, not ${data.length}`,
      );
    }
    if (!isAllFinite(data)) throw new InputError(`Cannot ${what}: they are not all finite numbers`);
  }
}
