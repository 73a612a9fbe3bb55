/**
 * From texts to pictures: the pieces of a latent diffusion model one after the other on a device, each
 * of which gives its memory back before the next one takes its own.
 *
 * @module
 */

import type { DenoiserWrapper } from "../diffusion/denoiser.ts";
import type { Device } from "../gpu/device.ts";
import { itemOf } from "../model/network.ts";
import type { TextToImageModel } from "../model/text_to_image.ts";
import { Mutex } from "../mutex.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { Autoencoder } from "./autoencoder.ts";
import { inpaint } from "./editing/inpaint.ts";
import {
  hasKnownColors,
  hideMasked,
  keepKnown,
  latentColors,
  latentMask,
} from "./latent_pictures.ts";
import { type SampleOptions, type Samples, strengthOf } from "./options.ts";
import { Sampler } from "./sampler.ts";
import { type MethodName, methods } from "./solvers/mod.ts";
import { check, checkCall, type Checked, factorOf, latentOptions } from "./text_to_image_checks.ts";
import { checkPictures, planCheck } from "./safety_check.ts";
import { planTexts, readTexts } from "./text_states.ts";
import type {
  Generated,
  GenerateOptions,
  TextToImageOptions,
  TextToImagePlan,
} from "./text_to_image_options.ts";

/** What a picture to begin with gives the denoiser. */
interface Beginning {
  readonly init?: Samples;
  readonly known?: Samples;
  readonly conditions: Readonly<Record<string, Float32Array>>;
  /** Of latents, 1 where to paint. */
  readonly mask?: Float32Array;
}

/**
 * A model that paints texts, on a device. Each call compiles the text encoder, the denoiser and the
 * decoder in turn, so that their memory is never taken at the same time, and nothing is kept.
 *
 * @example
 * ```ts
 * import { autoencoderNetwork, ByteTokenizer, initializeModel, initializeNetwork, openDevice,
 *   parseNetwork, parseTextEncoder, TextToImage } from "@x/ddpm";
 *
 * // Stable Diffusion has the same pieces, read from its files.
 * const denoiser = initializeModel(parseNetwork({ _class_name: "UNet2DConditionModel",
 *   sample_size: 8, block_out_channels: [8], norm_num_groups: 4, cross_attention_dim: 16,
 *   down_block_types: ["CrossAttnDownBlock2D"], up_block_types: ["CrossAttnUpBlock2D"] }),
 *   { _class_name: "DDIMScheduler", clip_sample: false }, 0);
 * const textEncoder = initializeNetwork(parseTextEncoder({ architectures: ["CLIPTextModel"],
 *   vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
 *   num_attention_heads: 2 }), 1);
 * const autoencoder = initializeNetwork(autoencoderNetwork(parseNetwork({
 *   _class_name: "AutoencoderKL", block_out_channels: [8, 8], norm_num_groups: 4,
 *   down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
 *   up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"] })), 2);
 * const model = { denoiser, textEncoder, tokenizer: new ByteTokenizer({ length: 77 }), autoencoder };
 *
 * using device = await openDevice("cpu");
 * const options = { size: [16, 24], steps: 3 } as const;
 * console.log(TextToImage.plan(device, model, options).denoise.bytes); // before any is allocated
 * const painter = await TextToImage.create(device, model, options);
 * const { images } = await painter.generate({ prompts: ["a red heart"], seed: 1, count: 2 });
 * console.log(images.shape); // [16, 24, 3]
 * // The left half anew, of another text.
 * const mask = Float32Array.from({ length: 16 * 24 }, (_, i) => i % 24 < 12 ? 1 : 0);
 * const changed = await painter.generate({ prompts: ["a blue one"], count: 2, init: images, mask });
 * console.log(changed.images.count); // 2
 * ```
 */
export class TextToImage {
  readonly #device: Device;
  readonly #checked: Checked;
  readonly #turns = new Mutex();

  private constructor(device: Device, model: TextToImageModel, options: TextToImageOptions) {
    this.#device = device;
    this.#checked = check(model, options);
  }

  /**
   * A pipeline with settings. It compiles nothing yet.
   *
   * @throws {InputError} If the pieces of the model, or the settings, do not go together.
   */
  static create(
    device: Device,
    model: TextToImageModel,
    options: TextToImageOptions = {},
  ): Promise<TextToImage> {
    return new Promise((resolve) => resolve(new TextToImage(device, model, options)));
  }

  /**
   * The memory that it will take; nothing is allocated, and no weights are read.
   *
   * @throws As {@linkcode TextToImage.create}.
   */
  static plan(
    device: Device,
    model: TextToImageModel,
    options: TextToImageOptions = {},
  ): TextToImagePlan {
    const { size, sampler, latentShape, fillsHoles } = check(model, options);
    const { autoencoder, denoiser, tokenizer, textEncoder, safetyChecker } = model;
    const half = (only: "encode" | "decode") =>
      Autoencoder.plan(device, autoencoder.network, { ...latentOptions(options), size, only });
    const wrap = [...sampler.wrap, ...(fillsHoles ? [] : [inpaint()])];
    return {
      text: planTexts(device, textEncoder.network, tokenizer.length, options.weightDType),
      encode: half("encode"),
      denoise: Sampler.plan(device, denoiser, { ...sampler, wrap, size: latentShape.slice(0, -1) }),
      decode: half("decode"),
      ...(safetyChecker ? { check: planCheck(device, safetyChecker, options.weightDType) } : {}),
    };
  }

  /** The shape of pictures, `[height, width, channels]`. */
  get pictureShape(): Shape {
    const { size, model } = this.#checked;
    return itemOf(model.autoencoder.network, size);
  }

  /** The shape of latents, `[height, width, channels]`. */
  get latentShape(): Shape {
    return this.#checked.latentShape;
  }

  /** The sampling method. */
  get method(): MethodName {
    return this.#checked.sampler.method;
  }

  /** Steps of a whole run. */
  get steps(): number {
    return this.#checked.steps;
  }

  /**
   * Paints pictures. Image k of a seed is the same whatever the count and the batch size. Calls at the
   * same time take turns.
   *
   * @throws {InputError} If settings are wrong.
   * @throws {LimitError} If a stage does not fit the device.
   * @throws {DeviceError} If the device fails.
   * @throws {Error} If a network gives numbers that are not finite.
   */
  async generate(options: GenerateOptions): Promise<Generated> {
    const { prompts, first = 0, count = prompts.length, signal, onProgress } = options;
    checkCall(this.#checked, options, count);
    using _ = await this.#turns.acquire();
    const texts = await this.#read(options, first, count);
    const begun = texts && await this.#begin(options, first);
    if (!begun || signal?.aborted) {
      const none = (shape: Shape) => ({ count: 0, shape, data: new Float32Array() });
      return { images: none(this.pictureShape), latents: none(this.latentShape) };
    }
    const latents = await this.#denoise(options, count, begun, texts);
    // What is done when the signal comes is decoded all the same.
    const decoding = signal?.aborted ? undefined : signal;
    const images = await this.#decode(
      latents,
      decoding,
      (done) => onProgress?.("decode", done, latents.count),
    );
    return { latents, ...await this.#check(images, decoding, onProgress) };
  }

  /** The states of the texts of all images, or of one for all; `undefined` if it was stopped. */
  async #read(
    { prompts, negative = "", signal, onProgress, onCut }: GenerateOptions,
    first: number,
    count: number,
  ): Promise<Record<string, Float32Array> | undefined> {
    const { model: { tokenizer, textEncoder }, options, sampler } = this.#checked;
    const tokenize = (text: string) => tokenizer.encodeWeighted?.(text) ?? tokenizer.encode(text);
    const wanted = {
      encoder_hidden_states: prompts,
      ...(sampler.wrap.length
        ? { negative_encoder_hidden_states: typeof negative === "string" ? [negative] : negative }
        : {}),
    };
    const ofImages = Object.entries(wanted).map(([name, texts]) => {
      const all = Array.from({ length: count }, (_, k) => texts[(first + k) % texts.length]);
      return [name, new Set(all).size === 1 ? all.slice(0, 1) : all] as const;
    });
    const distinct = [...new Set(ofImages.flatMap(([, texts]) => texts))];
    const tokens = distinct.map(tokenize);
    tokens.forEach(({ cut }, i) => cut && onCut?.(distinct[i], cut));
    const states = await readTexts(this.#device, textEncoder, tokens, tokenizer.length, {
      ...(signal ? { signal } : {}),
      weightDType: options.weightDType,
      onProgress: (done, total) => onProgress?.("text", done, total),
    });
    if (states.length < distinct.length) return undefined;
    return Object.fromEntries(ofImages.map(([name, texts]) => {
      const parts = texts.map((text) => states[distinct.indexOf(text)]);
      const joined = new Float32Array(parts.length * parts[0].length);
      parts.forEach((part, i) => joined.set(part, i * part.length));
      return [name, joined];
    }));
  }

  /** The latents of pictures to begin with; `undefined` if it was stopped. */
  async #begin(options: GenerateOptions, first: number): Promise<Beginning | undefined> {
    const { init, mask, seed = 0, encodeNoise, signal, onProgress } = options;
    if (!init) return { conditions: {} };
    const { model, size, fillsHoles, options: settings } = this.#checked;
    const strength = strengthOf(options), holes = mask && latentMask(mask, size, factorOf(model));
    using encoder = await Autoencoder.create(this.#device, model.autoencoder, {
      ...{ ...latentOptions(settings), size, only: "encode" },
    });
    const encode = (pictures: Samples) =>
      encoder.encode(pictures, {
        // One picture for all images has the same latents in each.
        ...{ seed, first: init.count === 1 ? 0 : first },
        ...(encodeNoise ? { noise: encodeNoise } : {}),
        ...(signal ? { signal } : {}),
        onProgress: (done, total) => onProgress?.("encode", done, total),
      });
    try {
      const shown = fillsHoles ? await encode(hideMasked(init, mask!)) : undefined;
      const whole = !shown || strength < 1 ? await encode(init) : undefined;
      return {
        // Inpainting with all steps begins with nothing but noise.
        ...(whole && (!mask || strength < 1) ? { init: whole } : {}),
        ...(holes ? { mask: holes } : {}),
        ...(shown || !mask ? {} : { known: whole! }),
        conditions: {
          ...(holes ? { mask: holes } : {}),
          ...(shown ? { masked_image: shown.data } : holes ? { known: whole!.data } : {}),
        },
      };
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return undefined;
      throw error;
    }
  }

  async #denoise(
    options: GenerateOptions,
    count: number,
    { init, known, mask, conditions }: Beginning,
    texts: Readonly<Record<string, Float32Array>>,
  ): Promise<Samples> {
    const { seed = 0, first = 0, start, signal, onProgress, onPreview, every = 1 } = options;
    const { model, latentShape, sampler: settings } = this.#checked;
    const { noise: draw, method } = settings;
    // A history of estimates makes sense with the same noise only.
    const kind = methods[method].isStochastic ? "fresh" : "fixed";
    const blend: DenoiserWrapper[] = known
      ? [inpaint({ noise: kind, ...(draw ? { draw } : {}) })]
      : [];
    using sampler = await Sampler.create(this.#device, model.denoiser, {
      ...{ ...settings, size: latentShape.slice(0, -1) },
      batchSize: Math.min(settings.batchSize, count),
      wrap: [...settings.wrap, ...blend],
    });
    const { steps } = sampler;
    const given: SampleOptions = {
      ...{ count, seed, first, conditions: { ...texts, ...conditions } },
      ...(init
        ? { init, skip: steps - Math.min(Math.trunc(steps * strengthOf(options)), steps) }
        : {}),
      cutsTimesteps: !options.keepsNoiseLevels,
      ...(start ? { start } : {}),
      ...(signal ? { signal } : {}),
      onProgress: (done, total) => onProgress?.("denoise", done, total),
    };
    const finish = (latents: Samples) => known && mask ? keepKnown(latents, known, mask) : latents;
    if (!onPreview) return finish(await sampler.sample(given));
    using previewer = this.#previewer();
    const stream = sampler.stream({ ...given, every });
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return finish(value);
      await onPreview({ ...value, pictures: () => previewer.look(value.sample) });
    }
  }

  /** What shows latents: a linear map where one is known, otherwise the decoder. */
  #previewer(): Disposable & { look(latents: Samples): Promise<Samples> } {
    const { model: { autoencoder }, size, options } = this.#checked;
    if (hasKnownColors(autoencoder.network)) {
      const look = (latents: Samples) => Promise.resolve(latentColors(latents));
      return { look, [Symbol.dispose]: () => {} };
    }
    let decoder: Autoencoder | undefined;
    return {
      look: async (latents) => {
        decoder ??= await Autoencoder.create(this.#device, autoencoder, {
          ...{ ...latentOptions(options), size, only: "decode" },
        });
        return await decoder.decode(latents);
      },
      [Symbol.dispose]: () => decoder?.[Symbol.dispose](),
    };
  }

  /** Decodes latents one by one; those that are done where the signal stops it. */
  async #decode(
    latents: Samples,
    signal: AbortSignal | undefined,
    onProgress: (done: number) => void,
  ): Promise<Samples> {
    const { model, size, options } = this.#checked, each = sizeOf(this.pictureShape);
    const data = new Float32Array(latents.count * each), one = sizeOf(latents.shape);
    let done = 0;
    if (latents.count) {
      using decoder = await Autoencoder.create(this.#device, model.autoencoder, {
        ...{ ...latentOptions(options), size, only: "decode" },
      });
      try {
        for (; done < latents.count && !signal?.aborted; onProgress(done)) {
          const part = latents.data.slice(done * one, (done + 1) * one);
          const decoded = await decoder.decode(
            { count: 1, shape: latents.shape, data: part },
            signal ? { signal } : {},
          );
          data.set(decoded.data, done++ * each);
        }
      } catch (error) {
        if (!signal?.aborted || error !== signal.reason) throw error;
      }
    }
    return { count: done, shape: this.pictureShape, data: data.slice(0, done * each) };
  }

  /** Makes images grey that the safety checker withholds; those that it saw where the signal stops it. */
  async #check(
    images: Samples,
    signal: AbortSignal | undefined,
    onProgress: GenerateOptions["onProgress"],
  ): Promise<Pick<Generated, "images" | "verdicts">> {
    const { model: { safetyChecker }, options: { weightDType } } = this.#checked;
    if (!safetyChecker) return { images };
    if (!images.count) return { images, verdicts: [] };
    const verdicts = await checkPictures(this.#device, safetyChecker, images, {
      weightDType,
      ...(signal ? { signal } : {}),
      onProgress: (done, total) => onProgress?.("check", done, total),
    });
    const each = sizeOf(images.shape), data = images.data.slice(0, verdicts.length * each);
    verdicts.forEach(({ isWithheld }, i) => isWithheld && data.fill(0, i * each, (i + 1) * each));
    return { images: { ...images, count: verdicts.length, data }, verdicts };
  }
}
