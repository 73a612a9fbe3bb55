/**
 * Grids that show what a training has come to: samples of a denoiser, reconstructions of an
 * autoencoder.
 *
 * @module
 */

import type { Dataset } from "../../data/dataset.ts";
import { latentScaling } from "../../data/latents.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import type { Device } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import {
  type AutoencoderModel,
  isDualEncoder,
  type Model,
  type Trainable,
} from "../../model/model.ts";
import { Autoencoder } from "../../sample/autoencoder.ts";
import { fittingBatch } from "../../sample/fitting_batch.ts";
import type { Samples } from "../../sample/options.ts";
import { defaultMethod, methods } from "../../sample/solvers/mod.ts";
import { defaultSteps } from "../../sample/timesteps.ts";
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
  const { labels: known } = network.conditions(data.shape);
  const classes = known?.below && known.below - (labelDropout ? 1 : 0);
  const labels = classes ? Array.from({ length: SHOWN }, (_, k) => k % classes) : undefined;
  return {
    memory: sampler.memory,
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
      return originals ? inTurns(images, originals) : images;
    },
    [Symbol.dispose]: () => sampler[Symbol.dispose](),
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
  const autoencoder = await fittingBatch(SHOWN, (batchSize) =>
    Autoencoder.create(device, model, {
      ...{ size: [height, width], batchSize, parameters: trainer.average },
    }));
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
