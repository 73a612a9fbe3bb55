/**
 * Plans for models that paint texts by way of latents, by the same rules as `ddpm sample`.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { type StreamOptions, strengthOf } from "../../sample/options.ts";
import { TextToImage } from "../../sample/text_to_image.ts";
import type {
  Generated,
  GenerateOptions,
  GenerationPreview,
} from "../../sample/text_to_image_options.ts";
import { readInit } from "../commands/edit.ts";
import { describeOptions, readOptions, samplerOfModel } from "../commands/sampler_flags.ts";
import { fitMemory } from "../commands/text_memory.ts";
import { checkHoles, readSettings, usualSize } from "../commands/text_to_image.ts";
import { formatParameters } from "../media/parameters.ts";
import { withheldOf } from "../run/withheld.ts";
import { type Plan, present, sent } from "./plan.ts";
import type { JobRequest } from "./schemas.ts";

/**
 * Plans a job.
 *
 * @throws {InputError} If the model cannot do that.
 */
export async function planTexts(
  model: TextToImageModel,
  name: string,
  request: JobRequest,
): Promise<Plan> {
  const { prompt, negative_prompt: negative = "", seed, count, strength } = request;
  const foreign = (["class", "labels", "walk"] as const)
    .find((field) => request[field] !== undefined);
  if (foreign) throw new InputError(`${foreign} is not for ${name}, which paints texts`);
  if (prompt === undefined) throw new InputError(`${name} paints texts: give a prompt`);
  const [ownHeight, ownWidth] = usualSize(model);
  const [height, width] = [request.height ?? ownHeight, request.width ?? ownWidth];
  const { sampler, steps, sigmas, eta, guidance: scale } = request;
  const flags = present({
    ...{ sampler, steps, sigmas, eta, guidance: scale },
    size: height && width ? `${width}x${height}` : undefined,
    "guidance-interval": request.guidance_interval?.join(","),
  });
  const { options, size, guidance } = readSettings(model, name, flags);
  const shape = [...size, model.autoencoder.network.itemShape[2]!];
  const { picture, mask, provenance } = await readInit(
    present({
      ...{ init: request.init && "init", mask: request.mask && "mask", strength },
    }),
    ...[shape, { say() {} }, sent(request)] as const,
  );
  checkHoles(model, name, mask);
  const usual = sampler ? undefined : samplerOfModel(model.denoiser);
  let facts: { readonly method: string; readonly steps: number } | undefined;
  let weights: string | undefined;
  let verdicts: Generated["verdicts"];
  return {
    ...{ count, weights: 0, options: {}, finish: (images) => images },
    async compile(device) {
      const about = { place: name, isBegun: picture !== undefined };
      const fitting = fitMemory(device, model, options, about);
      const painter = await TextToImage.create(device, model, fitting.options);
      facts = painter;
      weights = fitting.options.weightDType;
      const call: GenerateOptions = {
        ...{ prompts: [prompt], negative, count, seed },
        ...present({ init: picture, mask, strength }),
      };
      return {
        ...{ steps: painter.steps, memory: 0, [Symbol.dispose]() {} },
        async *stream(options) {
          const { images, verdicts: all } = yield* stream(painter, call, options);
          verdicts = all;
          return images;
        },
      };
    },
    hidesSteps: model.safetyChecker !== undefined,
    withheld: () => withheldOf(verdicts),
    provenance: (image) => ({
      ...{ model: name, seed, steps: facts!.steps, sampler: facts!.method },
      ...describeOptions({ ...usual?.options, ...readOptions(flags) }),
      prompt,
      ...(negative ? { negative } : {}),
      ...{ ...guidance.facts, ...present({ weights }), ...provenance, image },
    }),
    parameters: (image) =>
      formatParameters({
        ...{ prompt, negative, seed, image, size, model: name },
        ...{ steps: facts!.steps, method: facts!.method, guidance: guidance.options.scale! },
        sigmas: options.sigmas ?? usual?.options.sigmas,
        strength: picture ? strengthOf({ strength, mask }) : undefined,
      }),
  };
}

/** The steps of a call, which goes on when the next one is asked for; who stops listening ends it. */
async function* stream(
  painter: TextToImage,
  call: GenerateOptions,
  { every, signal }: StreamOptions,
): AsyncGenerator<GenerationPreview, Generated> {
  let next = Promise.withResolvers<GenerationPreview | undefined>(), goOn = () => {};
  let leave = (_: Error) => {};
  const result = painter.generate({
    ...{ ...call, ...present({ every, signal }) },
    onPreview(preview) {
      next.resolve(preview);
      return new Promise((...ends) => [goOn, leave] = ends);
    },
  });
  // What fails is thrown below.
  result.catch(() => {}).finally(() => next.resolve(undefined));
  try {
    for (let step = await next.promise; step; step = await next.promise) {
      next = Promise.withResolvers();
      yield step;
      goOn();
    }
    return await result;
  } finally {
    leave(new DOMException("Nobody listens", "AbortError"));
    await result.catch(() => {});
  }
}
