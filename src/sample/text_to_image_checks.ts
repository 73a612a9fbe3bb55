/**
 * What pipelines that paint texts check before they compile anything: whether pieces, settings and
 * calls go together.
 *
 * @module
 */

import { NoiseSchedule } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import { denoisingNetwork } from "../model/denoiser.ts";
import { itemOf } from "../model/network.ts";
import type { TextToImageModel } from "../model/text_to_image.ts";
import { formatShape, sameShape, type Shape } from "../shape.ts";
import { guided } from "./guidance/guided.ts";
import { checkInteger, type SamplerOptions, strengthOf } from "./options.ts";
import { checkChecker } from "./safety_check.ts";
import type { GenerateOptions, TextToImageOptions } from "./text_to_image_options.ts";
import { makeUpdateTable } from "./timesteps.ts";
import { methodOf } from "./sampling_programs.ts";
import { defaultMethod } from "./solvers/mod.ts";
import { usualGuidance } from "./guidance/usual.ts";
import { usualSampler } from "./usual_sampler.ts";

/** Pieces and settings that were found to go together. */
export interface Checked {
  readonly model: TextToImageModel;
  readonly options: TextToImageOptions;
  /** Height and width of pictures. */
  readonly size: readonly [number, number];
  readonly latentShape: Shape;
  /** Whether the denoiser is shown a mask. */
  readonly fillsHoles: boolean;
  /** Steps of a whole run. */
  readonly steps: number;
  readonly sampler:
    & SamplerOptions
    & Required<Pick<SamplerOptions, "method" | "batchSize" | "wrap">>;
}

/**
 * Pieces and settings of a pipeline.
 *
 * @throws {InputError} If pieces or settings do not go together.
 */
export function check(model: TextToImageModel, options: TextToImageOptions): Checked {
  const { textEncoder, tokenizer, autoencoder, denoiser } = model, factor = factorOf(model);
  const network = denoisingNetwork(denoiser), { latentChannels } = autoencoder.network;
  const { itemShape } = network, usualSize = itemShape.slice(0, 2).map((n) => n && n * factor);
  const size = options.size ??
    (usualSize.every((n) => n) ? usualSize as [number, number] : undefined);
  if (!size) throw new InputError("The denoiser has no sample_size: give the size of pictures");
  if (size.length !== 2 || size.some((n) => !Number.isSafeInteger(n) || n < factor || n % factor)) {
    throw new InputError(
      `Cannot paint pictures of ${size.join("x")}: sides must be multiples of ${factor}`,
    );
  }
  const latentShape = itemOf(network, size.map((n) => n / factor));
  const { encoder_hidden_states: text, masked_image: hole } = network.conditions(latentShape);
  if (!text) {
    throw new InputError(`The denoiser, of class ${network.className}, reads no texts`);
  }
  const refuse = (what: string) =>
    new InputError(`The pieces of the model do not go together: ${what}`);
  const { width, tokens, vocabulary } = textEncoder.network, [length, wanted] = text.shape;
  if (width !== wanted) {
    throw refuse(
      `the text encoder tells ${width} numbers of a token, the denoiser takes ${wanted}`,
    );
  }
  if (latentShape[2] !== latentChannels) {
    throw refuse(
      `latents have ${latentChannels} channels, but the denoiser takes ${latentShape[2]}`,
    );
  }
  if (tokenizer.length !== length || length > tokens || tokenizer.vocabulary > vocabulary) {
    throw refuse(
      `the tokenizer makes ${tokenizer.length} tokens below ${tokenizer.vocabulary}, the text ` +
        `encoder takes ${tokens} below ${vocabulary}, the denoiser ${length}`,
    );
  }
  if (model.safetyChecker) checkChecker(model.safetyChecker);
  const {
    guidance = usualGuidance.latents.scale,
    interval,
    rescale,
    tile: _,
    size: _size,
    ...rest
  } = options;
  const usual = options.method || !denoiser.scheduler
    ? undefined
    : usualSampler(denoiser.scheduler);
  const method = options.method ?? usual?.method ?? defaultMethod;
  const walk = { ...usual?.options, ...rest };
  const schedule = new NoiseSchedule(denoiser.schedule);
  const table = makeUpdateTable(methodOf(method), schedule, rest.steps, walk);
  const guide = { ...(interval ? { interval } : {}), ...(rescale ? { rescale } : {}) };
  return {
    ...{ model, options, size: [size[0], size[1]], latentShape, fillsHoles: hole !== undefined },
    steps: table.filter(({ endsStep = true }) => endsStep).length,
    sampler: {
      ...{ ...walk, method, batchSize: rest.batchSize ?? 1 },
      wrap: guidance === 1 ? [] : [guided({ scale: guidance, ...guide })],
    },
  };
}

/** @throws {InputError} If settings of a call are wrong. */
export function checkCall(checked: Checked, options: GenerateOptions, count: number): void {
  const pictureShape = itemOf(checked.model.autoencoder.network, checked.size);
  const { prompts, negative, init, mask, first = 0 } = options, strength = strengthOf(options);
  const { fillsHoles, size } = checked, refuse = (why: string) => new InputError(why);
  if (!prompts.length || negative?.length === 0 && typeof negative !== "string") {
    throw refuse("Cannot paint nothing: give a text, which may be empty");
  }
  checkInteger(count, 1, "the number of images");
  checkInteger(first, 0, "the number of the first image");
  if (mask && !init) throw refuse("A mask needs a picture in which to paint: give init");
  if (fillsHoles && !mask) {
    throw refuse(
      "The model fills holes: it is shown a mask and a picture beside noise (9 channels); give " +
        "init and mask",
    );
  }
  if (mask && mask.length !== size[0] * size[1]) {
    throw refuse(`A mask is ${size.join("x")}, ${size[0] * size[1]} numbers, not ${mask.length}`);
  }
  if (mask && !Array.prototype.some.call(mask, (value) => value >= 0.5)) {
    throw refuse("The mask leaves nothing to paint: it must be 1 where to paint, 0 elsewhere");
  }
  if (!(strength >= 0 && strength <= 1)) {
    throw refuse(`Cannot paint with strength ${strength}: it lies between 0 and 1`);
  }
  if (
    init && !(sameShape(init.shape, pictureShape) && [1, count].includes(init.count))
  ) {
    throw refuse(
      `Cannot begin with ${init.count} pictures of ${formatShape(init.shape)}: 1 or ${count} of ` +
        `${formatShape(pictureShape)} are needed`,
    );
  }
}

/** How many times smaller latents are. */
export const factorOf = ({ autoencoder }: TextToImageModel) => autoencoder.network.factor;

/** What of the settings is for the autoencoder. */
export const latentOptions = ({ tile, weightDType }: TextToImageOptions) => ({
  ...(tile === undefined ? {} : { tile }),
  ...(weightDType ? { weightDType } : {}),
});
