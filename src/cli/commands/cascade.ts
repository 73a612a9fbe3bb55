/**
 * Cascades of models (Ho et al. 2021): the first one paints, each of the others enlarges what the one
 * before it made.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Device } from "../../gpu/device.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import type { Model } from "../../model/model.ts";
import { shippedModels } from "../../model/shipped.ts";
import type { SamplerOptions, Samples } from "../../sample/options.ts";
import { defaultMethod, methods } from "../../sample/solvers/mod.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import { factorOf, knowsNoise } from "../../sample/upscaler.ts";
import type { Shape } from "../../shape.ts";
import { loadModel } from "../run/load_model.ts";
import { kindOf } from "../terminal/files.ts";
import { formatLeft, type Progress } from "../terminal/progress.ts";
import type { OutputKind } from "../media/picture_files.ts";
import { createUpscaler, tileOf } from "./upscaling.ts";

/** Noise that images get before they are enlarged, where nobody says how much. */
export const DEFAULT_NOISE_LEVEL = 0.1;

/** A model that enlarges, and where it is from. */
export interface Stage {
  readonly place: string;
  readonly model: Model;
}

/** What models of a list are at, unless it is the name of a single one that has commas in it. */
export async function splitModels(places: string): Promise<string[]> {
  const isOne = shippedModels.some((name) => name === places) ||
    !places.includes(",") || await kindOf(places) !== "nothing";
  const all = isOne ? [places] : places.split(",").map((place) => place.trim());
  if (all.every((place) => place !== "")) return all;
  throw new InputError(`--model must be models with commas between them, not ${places}`);
}

/** What is asked of a cascade. */
export interface CascadeOptions extends SamplerOptions {
  /** The class of each image. */
  readonly labels?: readonly number[] | undefined;
  readonly noiseLevel?: number | undefined;
  /** What is written at the end. */
  readonly kind: OutputKind;
}

/**
 * Loads the models behind the first.
 *
 * @throws {InputError} If one of them does not enlarge what it would be given, or the first one paints
 * nothing; or if something is asked that takes several models, or a single one.
 */
export async function loadStages(
  [first, ...places]: readonly string[],
  base: Model,
  { method = defaultMethod, steps, labels, noiseLevel, kind, ...options }: CascadeOptions,
): Promise<{ readonly stages: Stage[]; readonly factor: number }> {
  if (!places.length && noiseLevel !== undefined) {
    throw new InputError(
      "--noise-level goes with models that enlarge, behind the first of --model",
    );
  }
  if (places.length && kind === "animation") {
    throw new InputError("An animation shows the denoising by a single model, not by several");
  }
  if (base.network.kind === "denoiser" && base.network.factor) {
    throw new InputError(
      `Cannot paint with ${first}: it enlarges images; give it behind a model that paints them, ` +
        `--model mnist,${first}, or use upscale`,
    );
  }
  const stages: Stage[] = [], { itemShape } = base.network;
  let factor = 1;
  for (const place of places) {
    const model = await loadModel(place);
    factor *= factorOf(model);
    const tile = tileOf(model, place), [channels, before] = [tile[2], itemShape.at(-1)];
    if (channels !== before) {
      throw new InputError(
        `Cannot enlarge what ${first} makes by ${place}: it has ${before} channels, not ${channels}`,
      );
    }
    const { labels: known } = model.network.conditions(tile);
    const bad = labels?.find((label) => known?.below !== undefined && label >= known.below);
    if (known?.below !== undefined && (!labels || bad !== undefined)) {
      throw new InputError(
        `${place} has ${known.below} classes: the images of ${first} have ` +
          (labels ? `the class ${bad}` : "none"),
      );
    }
    makeUpdateTable(methods[method], new NoiseSchedule(model.schedule), steps, options);
    stages.push({ place, model });
  }
  return { stages, factor };
}

/** What a cascade makes of images. */
export interface Enlarged {
  readonly images: Samples;
  /** Whether the signal ended it, so that some or all images are missing. */
  readonly isStopped: boolean;
}

/** The shape of items that are enlarged. */
export const enlargedShape = ([height, width, ...rest]: Shape, factor: number): Shape =>
  factor === 1 ? [height, width, ...rest] : [height * factor, width * factor, ...rest];

/**
 * Enlarges images by one model after the other; each is gone from the device before the next comes.
 *
 * @param stages The models; the list is emptied, so that nobody holds their weights.
 */
export async function enlarge(
  device: Device,
  images: Samples,
  stages: Stage[],
  progress: Progress,
  { seed, noiseLevel: asked, labels, batchSize, signal, ...options }:
    & Omit<CascadeOptions, "kind">
    & { readonly seed: number; readonly batchSize: number; readonly signal: AbortSignal },
): Promise<Enlarged> {
  const count = stages.length + 1;
  for (let number = 2; stages.length; number++) {
    const [{ model }] = stages.splice(0, 1);
    progress.prefix = `model ${number} of ${count}: `;
    progress.update(`compiling for ${device.name}`);
    using upscaler = await createUpscaler(device, model, { ...options, batchSize });
    const began = performance.now();
    const hasClasses = "labels" in model.network.conditions(upscaler.sampler.itemShape);
    const noiseLevel = asked ?? (knowsNoise(model) ? DEFAULT_NOISE_LEVEL : 0);
    images = await upscaler.upscale({
      ...{ pictures: images, seed, noiseLevel, signal },
      ...(labels && hasClasses ? { labels } : {}),
      onProgress(done, total) {
        progress.update(
          `step ${done} of ${total}${formatLeft(done, total, (performance.now() - began) / 1000)}`,
        );
      },
    });
    if (!signal.aborted) continue;
    // What is between two models is nothing to show.
    return { images: stages.length ? { ...images, count: 0 } : images, isStopped: true };
  }
  return { images, isStopped: false };
}
