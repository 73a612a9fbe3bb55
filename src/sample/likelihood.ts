/**
 * How many bits a model needs for images, per value: at most by the variational bound, and by the
 * density of its probability-flow ODE.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Device, TensorBuffer } from "../gpu/device.ts";
import type { Graph } from "../gpu/graph.ts";
import { Pace } from "../gpu/step_pacer.ts";
import { seedWords } from "../gpu/philox.ts";
import { sizeOf } from "../shape.ts";
import { priorTerm } from "../diffusion/vlb.ts";
import type { Model } from "../model/model.ts";
import type { Denoiser } from "../diffusion/denoiser.ts";
import { writeWeights } from "../diffusion/weights.ts";
import { denoiserOf } from "../model/denoiser.ts";
import { checkConditions, conditionInputs, writeConditions } from "./conditions.ts";
import { checkNumbers } from "./health.ts";
import { boundGraph } from "./vlb_graph.ts";
import { FLOW_STAGES, flowDensity, flowGraph } from "./probability_flow.ts";
import type { Samples } from "./options.ts";

/** Settings of both measurements. */
export interface LikelihoodOptions {
  /** Of the noise. Image k of a seed is measured alike whatever the batch size. @default {0} */
  readonly seed?: number;
  /** Images that are computed together; memory grows with it. @default {16} */
  readonly batchSize?: number;
  /** A class for each image, for models that have classes. */
  readonly labels?: readonly number[];
  /** What other conditions are, by name, as in {@linkcode SampleOptions}. */
  readonly conditions?: Readonly<Record<string, ArrayLike<number>>>;
  /** Stops between evaluations. */
  readonly signal?: AbortSignal;
  /** Is told how many of all evaluations of all batches are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A variational bound, in bits a value, means over the images. */
export interface Bound {
  /** The sum of all terms: no code needs more. */
  readonly total: number;
  /** For x_T: how far it is from noise. */
  readonly prior: number;
  /**
   * Of each timestep t: the divergence of p(x_{t-1} | x_t) from q(x_{t-1} | x_t, x_0), and at t = 0
   * the code length of the bytes (the decoder's term).
   */
  readonly terms: readonly number[];
  /** The totals of the images. */
  readonly images: readonly number[];
}

/** A density, in bits a value. */
export interface Density {
  /** Mean over the images. */
  readonly total: number;
  /** Of each image. */
  readonly images: readonly number[];
}

/**
 * The variational bound (Ho et al. 2020, equation 5): every timestep of every image with one draw of
 * noise.
 *
 * @param images Bytes as multiples of 1/127.5 from -1 to 1.
 * @throws {InputError} If images or labels do not fit the model.
 * @throws {DeviceError} If the device fails.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { initializeModel, measureBound, openDevice, parseNetwork } from "@x/ddpm";
 *
 * const network = parseNetwork({ in_channels: 1, out_channels: 1, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(network, { num_train_timesteps: 10 }, 0);
 * const images = { count: 2, shape: [8, 8, 1], data: new Float32Array(128) };
 * using device = await openDevice("cpu");
 * const { total, prior, terms } = await measureBound(device, model, images);
 * console.log(total, prior, terms.length); // bits a value, of which bits, 10
 * ```
 */
export async function measureBound(
  device: Device,
  model: Model,
  images: Samples,
  options: LikelihoodOptions = {},
): Promise<Bound> {
  return await boundOf(device, denoiserFor(model, images), images, options);
}

/**
 * The density of the probability-flow ODE (Song et al. 2021, equation 39), for bytes to which uniform
 * noise is added within their bins. The ODE is solved by Runge and Kutta's method of order 4 in
 * σ^(1/7), σ the noise in units of the image; the trace of its Jacobian is estimated by one random
 * vector of signs (Hutchinson 1990).
 *
 * @param images Bytes as multiples of 1/127.5 from -1 to 1.
 * @param steps Steps of four evaluations each. @default {64}
 * @throws {InputError} If images, labels or steps do not fit the model.
 * @throws {DeviceError} If the device fails.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { initializeModel, measureDensity, openDevice, parseNetwork } from "@x/ddpm";
 *
 * const network = parseNetwork({ in_channels: 1, out_channels: 1, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(network, {}, 0);
 * const images = { count: 2, shape: [8, 8, 1], data: new Float32Array(128) };
 * using device = await openDevice("cpu");
 * console.log((await measureDensity(device, model, images, { steps: 8 })).total);
 * ```
 */
export async function measureDensity(
  device: Device,
  model: Model,
  images: Samples,
  options: LikelihoodOptions & { readonly steps?: number } = {},
): Promise<Density> {
  return await densityOf(device, denoiserFor(model, images), images, options);
}

/** {@linkcode measureBound} for any denoiser. */
export async function boundOf(
  device: Device,
  denoiser: Denoiser,
  images: Samples,
  options: LikelihoodOptions,
): Promise<Bound> {
  checkImages(denoiser, images, options);
  const batch = batchOf(images, options), { betas } = denoiser.schedule, steps = betas.length;
  const graph = boundGraph(denoiser, batch, conditionInputs(denoiser.conditions, batch));
  const sums = new Float64Array(steps),
    totals: number[] = [],
    each = images.data.length / images.count;
  for await (
    const { first, here, buffers } of play(device, graph, steps, denoiser, images, options)
  ) {
    const terms = checkNumbers(await buffers.terms.read(), "measure the likelihood");
    for (let i = 0; i < here; i++) {
      const at = (first + i) * each;
      let total = priorTerm(denoiser.schedule, images.data.subarray(at, at + each));
      for (let t = 0; t < steps; t++) {
        sums[t] += terms[t * batch + i];
        total += terms[t * batch + i];
      }
      totals.push(total);
    }
  }
  const prior = priorTerm(denoiser.schedule, images.data);
  const terms = Array.from(sums, (sum) => sum / images.count);
  return { total: terms.reduce((a, b) => a + b, prior), prior, terms, images: totals };
}

/** {@linkcode measureDensity} for any denoiser. */
export async function densityOf(
  device: Device,
  denoiser: Denoiser,
  images: Samples,
  { steps = 64, ...options }: LikelihoodOptions & { readonly steps?: number },
): Promise<Density> {
  if (!(Number.isSafeInteger(steps) && steps >= 1)) {
    throw new InputError(`Cannot solve the ODE in ${steps} steps: give a whole number from 1 on`);
  }
  checkImages(denoiser, images, options);
  const { count } = images, batch = batchOf(images, options);
  const each = images.data.length / count, totals: number[] = [];
  const graph = flowGraph(denoiser, batch, conditionInputs(denoiser.conditions, batch), steps);
  const runs = FLOW_STAGES * steps + 1;
  for await (const { here, buffers } of play(device, graph, runs, denoiser, images, options)) {
    const [ends, traces] = await Promise.all(
      [buffers.point, buffers.trace].map(async (buffer) =>
        checkNumbers(await buffer.read(), "measure the likelihood")
      ),
    );
    for (let i = 0; i < here; i++) {
      const end = ends.subarray(i * each, (i + 1) * each);
      totals.push(flowDensity(denoiser.schedule, end, traces[i]));
    }
  }
  return { total: totals.reduce((a, b) => a + b) / count, images: totals };
}

const batchOf = ({ count }: Samples, { batchSize = 16 }: LikelihoodOptions) =>
  Math.min(batchSize, count);

/** Runs a graph so many times for each batch of images, its counter `step` from 0 on. */
async function* play(
  device: Device,
  graph: Graph,
  runs: number,
  { weights, conditions }: Denoiser,
  images: Samples,
  options: LikelihoodOptions,
): AsyncGenerator<
  { first: number; here: number; buffers: Readonly<Record<string, TensorBuffer>> }
> {
  const { seed = 0, signal, onProgress } = options, batch = batchOf(images, options);
  const { count, data } = images,
    each = data.length / count,
    total = runs * Math.ceil(count / batch);
  using program = await device.compile(graph, {
    ...{ label: "measuring the likelihood", constant: Object.keys(weights) },
  });
  const { buffers } = program, pace = new Pace(device);
  for (const [name, values] of Object.entries(weights)) writeWeights(values, buffers[name]);
  buffers.seed.write(seedWords(seed));
  for (let first = 0, done = 0; first < count; first += batch) {
    const here = Math.min(batch, count - first);
    buffers.images.write(data.subarray(first * each, (first + here) * each));
    buffers.first.write([first]);
    buffers.step.write([0]);
    writeConditions(buffers, conditions, options, { count, first, here });
    for (let ran = 0; ran < runs;) {
      signal?.throwIfAborted();
      const now = pace.begin(runs - ran);
      program.run(now);
      await device.idle();
      ran += now;
      onProgress?.(done += now, total);
      await pace.end(now);
    }
    yield { first, here, buffers };
  }
}

/** A model as a denoiser of images of this size. */
function denoiserFor(model: Model, images: Samples): Denoiser {
  const denoiser = denoiserOf(model, images.shape.slice(0, -1));
  if (denoiser.itemShape.at(-1) === images.shape.at(-1)) return denoiser;
  throw new InputError(
    `Cannot measure the likelihood: the images have ${
      images.shape.at(-1)
    } channels, but the model ` +
      `is for ${denoiser.itemShape.at(-1)}`,
  );
}

/** @throws {InputError} If images or settings do not fit the denoiser. */
function checkImages(
  { conditions }: Denoiser,
  { count, shape, data }: Samples,
  options: LikelihoodOptions,
): void {
  const { batchSize = 1 } = options;
  const refuse = (why: string) => new InputError(`Cannot measure the likelihood: ${why}`);
  if (!(count >= 1) || data.length !== count * sizeOf(shape)) {
    throw refuse(`${count} images of ${shape.join("x")} are not ${data.length} values`);
  }
  if (!(Number.isSafeInteger(batchSize) && batchSize >= 1)) {
    throw refuse(`the batch size is ${batchSize}, but must be a whole number from 1 on`);
  }
  checkConditions(conditions, options, count);
}
