/**
 * Ways from one image to another through the noise that they are made of (Song, Meng and Ermon 2021,
 * section 5.3).
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { makeGraph } from "../gpu/graph.ts";
import { randomNormal } from "../gpu/ops/random.ts";
import { seedWords } from "../gpu/philox.ts";
import { interpret } from "../gpu/reference.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { constant } from "../gpu/tensor.ts";
import type { Samples } from "./options.ts";

/** The stream of random numbers that starts trajectories. */
export const START_STREAM = 1;

/** What {@linkcode startNoise} is to draw. */
export interface NoiseOptions {
  /** Whose noise. @default {0} */
  readonly seed?: number;
  /** The number of the first image. @default {0} */
  readonly first?: number;
  /** How many. @default {1} */
  readonly count?: number;
}

/**
 * The noise that a sampler starts the items of a seed from.
 *
 * @param shape Of one item: height, width and channels.
 *
 * @example
 * ```ts
 * import { startNoise } from "@x/ddpm";
 *
 * console.log(startNoise([28, 28, 1], { seed: 7 }).data.length); // 784
 * ```
 */
export function startNoise(
  shape: Shape,
  { seed = 0, first = 0, count = 1 }: NoiseOptions = {},
): Samples {
  const noise = randomNormal([count, ...shape], {
    seed: constant(new Int32Array(seedWords(seed))),
    first: constant(new Int32Array([first])),
    step: constant(new Int32Array(1)),
  }, START_STREAM);
  const { values } = interpret(makeGraph({ values: noise }), {}, "single");
  return { count, shape, data: new Float32Array(values) };
}

/**
 * Noise near a given one: each a step along a great circle towards fresh noise.
 *
 * @param noise One item's noise, as `ddim_inverse` finds it for a picture.
 * @param amount How far: 0 stays, 1 is fresh noise.
 * @throws {InputError} If there is more than one item, or `amount` does not lie between 0 and 1.
 *
 * @example
 * ```ts
 * import { startNoise, vary } from "@x/ddpm";
 *
 * console.log(vary(startNoise([28, 28, 1]), 0.2, { seed: 3, count: 4 }).count); // 4
 * ```
 */
export function vary(noise: Samples, amount: number, options: NoiseOptions = {}): Samples {
  if (!(amount >= 0 && amount <= 1)) {
    throw new InputError(`Cannot vary noise by ${amount}: it lies between 0 and 1`);
  }
  const fresh = startNoise(noise.shape, options), size = sizeOf(noise.shape);
  const data = new Float32Array(fresh.data.length);
  for (let i = 0; i < fresh.count; i++) {
    const to = { ...fresh, count: 1, data: fresh.data.slice(i * size, (i + 1) * size) };
    data.set(along(noise, to, amount), i * size);
  }
  return { ...fresh, data };
}

/**
 * Noise on the way from that of a seed to that of another one, each image its own way.
 *
 * @param shape Of one item.
 * @param walk The other seed, and how far: 0 stays, 1 is its noise.
 */
export function walkNoise(
  shape: Shape,
  { seed = 0, first = 0, count = 1 }: NoiseOptions,
  walk: { readonly seed: number; readonly share: number },
): Samples {
  const size = sizeOf(shape), data = new Float32Array(count * size);
  for (let k = 0; k < count; k++) {
    const noise = startNoise(shape, { seed, first: first + k });
    data.set(vary(noise, walk.share, { seed: walk.seed, first: first + k }).data, k * size);
  }
  return { count, shape, data };
}

/**
 * Images from one to the other, both included, along a great circle: on the way the norm of noise
 * stays what it is, while a straight line would take half of its variance away.
 *
 * @param from One image.
 * @param to Another of the same size.
 * @param count How many, at least 2.
 * @throws {InputError} If the images are not of one size, or more than one each.
 *
 * @example Five steps from one digit to another
 * ```ts
 * import { fetchModel, interpolate, openDevice, Sampler, startNoise } from "@x/ddpm";
 *
 * const model = await fetchModel("mnist-unconditional");
 * using device = await openDevice();
 * using sampler = await Sampler.create(device, model, { method: "ddim", steps: 5, batchSize: 5 });
 * const [one, other] = [1, 2].map((seed) => startNoise([28, 28, 1], { seed }));
 * const start = interpolate(one, other, 5);
 * console.log((await sampler.sample({ count: 5, start })).count);
 * ```
 */
export function interpolate(from: Samples, to: Samples, count: number): Samples {
  if (!(Number.isSafeInteger(count) && count >= 2)) {
    throw new InputError(`Cannot interpolate by ${count} images: it takes 2 at least`);
  }
  const size = sizeOf(from.shape), data = new Float32Array(count * size);
  for (let k = 0; k < count; k++) data.set(along(from, to, k / (count - 1)), k * size);
  return { ...from, count, data };
}

/** The item at a share of the way from one to the other. */
function along(from: Samples, to: Samples, share: number): Float32Array<ArrayBuffer> {
  const sides = ({ count, shape }: Samples) => [count, ...shape];
  if (from.count !== 1 || sides(from).some((n, i) => n !== sides(to)[i])) {
    throw new InputError(
      `Cannot interpolate between ${sides(from).join("x")} and ${sides(to).join("x")}: they must ` +
        "be one image each, of one size",
    );
  }
  const a = from.data, b = to.data;
  const product = (x: Float32Array, y: Float32Array) => x.reduce((sum, v, i) => sum + v * y[i], 0);
  const cosine = product(a, b) / Math.sqrt(product(a, a) * product(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle);
  // Of one direction, or opposite ones, there is no arc.
  const [p, q] = sine > 1e-6
    ? [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine]
    : [1 - share, share];
  return a.map((x, i) => p * x + q * b[i]);
}
