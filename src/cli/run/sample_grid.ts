/**
 * Grids that show what a training has come to: samples of a denoiser, reconstructions of an
 * autoencoder.
 *
 * @module
 */

import type { Dataset } from "../../data/dataset.ts";
import { latentScaling } from "../../data/latents.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import { type Device, LimitError } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import {
  type AutoencoderModel,
  isDualEncoder,
  type Model,
  type Trainable,
} from "../../model/model.ts";
import type { AutoencoderNetwork } from "../../model/network.ts";
import type { Weighted } from "../../model/weights.ts";
import {
  Autoencoder,
  type AutoencoderOptions,
  type EncodeOptions,
} from "../../sample/autoencoder.ts";
import type { Samples } from "../../sample/options.ts";
import { defaultMethod, methods } from "../../sample/solvers/mod.ts";
import { defaultSteps } from "../../sample/timesteps.ts";
import type { Shape } from "../../shape.ts";
import type { Trainer } from "../../train/trainer.ts";
import { createSampler } from "../commands/samplers.ts";
import {
  derivedConditions,
  firstItems,
  inTurns,
  someItems,
  tokensOfSome,
} from "./shown_samples.ts";

/** Images of a grid. */
const SHOWN = 16;

/** Pictures by whose latents their scale is measured, from all over the data. */
const MEASURED = 256;

/** Draws by the EMA of the weights that are trained. */
export interface SampleGrid extends Disposable {
  /** Bytes on the device, those of the weights not counted. */
  readonly memory: number;
  /** What is told of how the pictures came about. */
  readonly facts: Readonly<Record<string, string | number>>;
  /** The pictures. */
  draw(signal: AbortSignal): Promise<Samples>;
  /** Of autoencoders: one over the standard deviation of latents. */
  measureScale?(): Promise<number>;
}

/**
 * Compiles what draws a grid; nothing for classifiers and dual encoders.
 *
 * @throws {LimitError} If it does not fit the device.
 */
export async function createGrid(
  device: Device,
  model: Trainable,
  data: Dataset,
  trainer: Trainer<Trainable>,
): Promise<SampleGrid | undefined> {
  if (isDualEncoder(model)) return undefined;
  if (!("schedule" in model)) return await reconstructions(device, model, data, trainer);
  if (model.network.kind === "classifier") return undefined;
  return await samples(device, model, data, trainer);
}

/**
 * Samples; where training makes conditions of the data, by those of its first images, which are drawn
 * beside.
 */
async function samples(
  device: Device,
  model: Model,
  data: Dataset,
  trainer: Trainer<Trainable>,
): Promise<SampleGrid> {
  const { seed, labelDropout, precision } = trainer.config, network = denoisingNetwork(model);
  const steps = defaultSteps(methods[defaultMethod], new NoiseSchedule(model.schedule));
  const sampler = await createSampler(device, model, {
    ...{ method: defaultMethod, steps, parameters: trainer.average, precision, batchSize: SHOWN },
  });
  using stack = new DisposableStack();
  stack.use(sampler);
  const decoder = model.autoencoder &&
    stack.use(await createDecoder(device, model.autoencoder, data.shape, SHOWN));
  const { labels: known } = network.conditions(data.shape);
  const classes = known?.below && known.below - (labelDropout ? 1 : 0);
  const labels = classes ? Array.from({ length: SHOWN }, (_, k) => k % classes) : undefined;
  const owned = stack.move();
  return {
    memory: sampler.memory + (decoder?.memory ?? 0),
    facts: { seed, steps: sampler.steps, sampler: defaultMethod },
    async draw(signal) {
      const originals = network.derived && await firstItems(data, SHOWN);
      const tokens = tokensOfSome(network, data, SHOWN);
      const images = await sampler.sample({
        ...{ count: SHOWN, seed, signal },
        ...(labels ? { labels } : {}),
        conditions: {
          ...(originals ? derivedConditions(network, originals) : {}),
          ...(tokens ? { tokens } : {}),
        },
      });
      if (decoder && !signal.aborted) return await decoder.decode(images, { signal });
      return originals ? inTurns(images, originals) : images;
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/** The first images, and what becomes of them by way of the means of their latents. */
async function reconstructions(
  device: Device,
  model: AutoencoderModel,
  data: Dataset,
  trainer: Trainer<Trainable>,
): Promise<SampleGrid> {
  const [height, width] = data.shape;
  const autoencoder = await createAutoencoder(device, model, {
    ...{ size: [height, width], batchSize: SHOWN, parameters: trainer.average },
  });
  return {
    memory: autoencoder.memory,
    facts: { shown: "reconstructions and originals in turns" },
    async draw(signal) {
      const originals = await firstItems(data, SHOWN);
      const latents = await autoencoder.encode(originals, { sample: false, signal });
      return inTurns(await autoencoder.decode(latents, { signal }), originals);
    },
    async measureScale() {
      const pictures = await someItems(data, Math.min(MEASURED, data.count));
      return latentScaling(await autoencoder.latents(pictures));
    },
    [Symbol.dispose]: () => autoencoder[Symbol.dispose](),
  };
}

/** What makes pictures of latents of a shape, so many together as fit the device. */
export const createDecoder = async (
  device: Device,
  autoencoder: Weighted<AutoencoderNetwork>,
  shape: Shape,
  batchSize: number,
): Promise<Autoencoder> =>
  await createAutoencoder(device, autoencoder, {
    ...{
      size: paintedShape(autoencoder.network, shape).slice(0, 2) as [number, number],
      batchSize,
    },
    only: "decode",
  });

/** The latents of pictures; what computes them is gone afterwards. */
export async function encodePictures(
  device: Device,
  autoencoder: Weighted<AutoencoderNetwork>,
  pictures: Samples,
  options: EncodeOptions,
): Promise<Samples> {
  const [height, width] = pictures.shape, batchSize = pictures.count;
  using encoder = await createAutoencoder(device, autoencoder, {
    ...{ size: [height, width], batchSize, only: "encode" },
  });
  return await encoder.encode(pictures, options);
}

/** The shape of the pictures that latents of a shape become. */
export const paintedShape = (
  { factor, itemShape }: AutoencoderNetwork,
  [height, width]: Shape,
): Shape => [height * factor, width * factor, itemShape.at(-1)!];

/** An autoencoder that computes no more pictures together than fit the device. */
export async function createAutoencoder(
  device: Device,
  model: Weighted<AutoencoderNetwork>,
  options: AutoencoderOptions & { readonly batchSize: number },
): Promise<Autoencoder> {
  try {
    return await Autoencoder.create(device, model, options);
  } catch (error) {
    if (!(error instanceof LimitError) || options.batchSize === 1) throw error;
    const batchSize = Math.ceil(options.batchSize / 2);
    return await createAutoencoder(device, model, { ...options, batchSize });
  }
}
