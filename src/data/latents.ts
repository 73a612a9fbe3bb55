/**
 * Latents of pictures as a data set, which denoisers of latents learn from.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { fourNormals, philox, seedWords } from "../gpu/philox.ts";
import { type Shape, sizeOf } from "../shape.ts";
import type { Batch, Batches, BatchPlan } from "./batches.ts";
import type { Dataset, DatasetInfo } from "./dataset.ts";

/** What an autoencoder makes of pictures, before any scaling. */
export interface Latents {
  /** Of each, `[height, width, channels]`. */
  readonly shape: Shape;
  /** `[count, ...shape]`. */
  readonly mean: Float32Array<ArrayBuffer>;
  /** Of autoencoders that make normal distributions: the logarithms of their variances, alike. */
  readonly logVariance?: Float32Array<ArrayBuffer>;
}

/** How latents are shown to denoisers: z as (z - shiftFactor) · scalingFactor. */
export interface LatentScale {
  /** What makes their standard deviation about 1. */
  readonly scalingFactor: number;
  /** What is taken away before. */
  readonly shiftFactor: number;
}

/** Keeps the drawing of latents apart from everything else that is drawn from a seed. */
const LATENT_STREAM = 0x1a7e;

/**
 * One over the standard deviation of latents that are drawn, over all numbers: what makes it 1, as
 * denoisers expect it. Not finite if they are all the same.
 */
export function latentScaling({ mean, logVariance }: Latents): number {
  let sum = 0, squares = 0;
  for (let i = 0; i < mean.length; i++) {
    sum += mean[i];
    squares += mean[i] ** 2 + (logVariance ? Math.exp(logVariance[i]) : 0);
  }
  return 1 / Math.sqrt(squares / mean.length - (sum / mean.length) ** 2);
}

/**
 * Latents as a data set. Of normal distributions, every place in the order of a training draws anew,
 * a pure function of the seed and the place, as in latent diffusion; `read()` gives the means.
 *
 * @param info What is known of the pictures.
 * @throws {InputError} If there are not as many latents as pictures.
 *
 * @example
 * ```ts
 * import { latentDataset, latentScaling } from "@x/ddpm/data";
 *
 * const latents = { shape: [1, 1, 2], mean: Float32Array.of(1, -1, 3, -3) };
 * const scale = { scalingFactor: latentScaling(latents), shiftFactor: 0 };
 * const data = latentDataset({ name: "two", count: 2 }, latents, scale);
 * console.log(data.shape, scale.scalingFactor); // [1, 1, 2], 0.447
 * ```
 */
export function latentDataset(
  info: DatasetInfo,
  latents: Latents,
  scale: LatentScale,
): Dataset {
  const { shape, mean, logVariance } = latents, each = sizeOf(shape);
  for (const values of [mean, ...(logVariance ? [logVariance] : [])]) {
    if (values.length === info.count * each) continue;
    throw new InputError(
      `Cannot use latents of ${info.name}: ${info.count} of them are ${
        info.count * each
      } numbers, ` +
        `not ${values.length}`,
    );
  }
  const scaled = (z: number) => (z - scale.shiftFactor) * scale.scalingFactor;
  // Of a data set, what it says of itself.
  const { batches: _batches, read: _read, ...rest }: DatasetInfo & Partial<Dataset> = info;
  return {
    ...rest,
    shape,
    read(index, out, offset) {
      for (let i = 0; i < each; i++) out[offset + i] = scaled(mean[index * each + i]);
    },
    ...(logVariance
      ? { batches: (plan) => new LatentBatches(info, { ...latents, logVariance }, scaled, plan) }
      : {}),
  };
}

class LatentBatches implements Batches {
  readonly #info: DatasetInfo;
  readonly #latents: Required<Latents>;
  readonly #scaled: (z: number) => number;
  readonly #plan: BatchPlan;
  readonly #batch: Batch;

  constructor(
    info: DatasetInfo,
    latents: Required<Latents>,
    scaled: (z: number) => number,
    plan: BatchPlan,
  ) {
    this.#info = info;
    this.#latents = latents;
    this.#scaled = scaled;
    this.#plan = plan;
    this.#batch = {
      images: new Float32Array(plan.size * sizeOf(latents.shape)),
      labels: new Int32Array(plan.size),
      indices: new Uint32Array(plan.size),
    };
  }

  at(place: number): Promise<Batch> {
    const { images, labels, indices } = this.#batch, { shape, mean, logVariance } = this.#latents;
    const each = sizeOf(shape), [low, high] = seedWords(this.#plan.seed);
    const words = new Uint32Array(4);
    for (let k = 0; k < this.#plan.size; k++) {
      const index = this.#plan.imageAt(place + k), from = index * each;
      for (let i = 0; i < each; i += 4) {
        philox(
          [i / 4, place + k, Math.floor((place + k) / 2 ** 32), LATENT_STREAM],
          [low, high],
          words,
        );
        const four = fourNormals(words);
        for (let j = i; j < Math.min(i + 4, each); j++) {
          const z = mean[from + j] + Math.exp(logVariance[from + j] / 2) * four[j - i];
          images[k * each + j] = this.#scaled(z);
        }
      }
      labels[k] = this.#info.labels?.[index] ?? 0;
      indices[k] = index;
    }
    return Promise.resolve(this.#batch);
  }

  [Symbol.dispose](): void {}
}
