/**
 * `ddpm sample` with a model that paints texts by way of latents.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Precision } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { WeightDType } from "../../model/parameters.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { type Samples, strengthOf } from "../../sample/options.ts";
import type { MethodName } from "../../sample/solvers/mod.ts";
import { usualGuidance } from "../../sample/guidance/usual.ts";
import { sizeOf } from "../../shape.ts";
import { TextToImage } from "../../sample/text_to_image.ts";
import type {
  GenerationPreview,
  GenerationStage,
  TextToImageOptions,
} from "../../sample/text_to_image_options.ts";
import { formatParameters } from "../media/parameters.ts";
import { checkDrawable, checkMarkable, type Output, writeImages } from "../media/picture_files.ts";
import { INTERRUPTED, Interruption } from "../run/interruption.ts";
import { loraFlags } from "../run/load_lora.ts";
import { safetyFlags, WITHHELD, withheldOf } from "../run/withheld.ts";
import { openForCommand } from "../terminal/device.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { formatLeft, print, printError, Progress } from "../terminal/progress.ts";
import { MAX_FRAMES } from "../terminal/sampling_run.ts";
import { Watching } from "../terminal/watching.ts";
import { readInit } from "./edit.ts";
import { type guidanceFlags, readGuidance } from "./guidance_flags.ts";
import { parseSize } from "./image_options.ts";
import type { Prompts } from "./prompt_flags.ts";
import type { sampleFlags } from "./sample.ts";
import { watermarkOf } from "./watermark_flags.ts";
import { fitMemory } from "./text_memory.ts";
import {
  describeOptions,
  readOptions,
  type samplerFlags,
  samplerOfModel,
} from "./sampler_flags.ts";

/** What only these models understand. */
export const latentFlags = {
  size: {
    kind: "text",
    value: "N|WxH",
    help: "of models that paint by way of latents, the size of images; default their own",
  },
  tile: {
    kind: "integer",
    min: 8,
    max: 65536,
    help:
      "of such models, decode in tiles of so many pixels a side, which takes less memory; colors may differ slightly",
  },
  weights: {
    kind: "text",
    choices: ["f32", "f16", "bf16"] satisfies WeightDType[],
    value: "NAME",
    help:
      "of such models, how weights lie in memory: f16 and bf16 take half of it; default f32, or f16 where that does not fit",
  },
  ...loraFlags,
  ...safetyFlags,
} as const satisfies Record<string, Flag>;

type SampleFlags = Flags<typeof sampleFlags>;

/** What they do not understand. */
const FOREIGN = [
  ...["class", "negative-class", "other-class", "region", "variation", "guide", "resample"],
  ...["jump", "noise-level", "classifier", "classifier-scale"],
] as const;

/** What stages do, in words. */
const WORK: Readonly<Record<GenerationStage, string>> = {
  ...{ text: "reading texts", encode: "encoding", denoise: "step", decode: "decoding" },
  check: "checking",
};

/**
 * Paints images of texts.
 *
 * @param place What the model is called.
 */
export async function paintTexts(
  model: TextToImageModel,
  place: string,
  flags: SampleFlags,
  prompts: Prompts | undefined,
  output: Output,
): Promise<number> {
  const given = Object.entries(flags).filter(([, value]) => value !== undefined);
  const foreign = given.find(([name]) => (FOREIGN as readonly string[]).includes(name));
  if (foreign) throw new InputError(`--${foreign[0]} is not for ${place}, which paints texts`);
  if (!prompts) throw new InputError(`${place} paints texts: say with --prompt what to paint`);
  if (flags.preview && model.safetyChecker) {
    throw new InputError(
      `--preview would show what the safety checker of ${place} has not seen: leave it out, or give ` +
        "--no-safety-checker",
    );
  }
  const { texts, negative } = prompts, { count = texts.length, seed = 0 } = flags;
  if (count < texts.length) {
    throw new InputError(`There are ${texts.length} prompts: --count ${count} leaves some out`);
  }
  const { options, size, guidance } = readSettings(model, place, flags);
  const shape = [...size, model.autoencoder.network.itemShape[2]!] as const;
  await checkDrawable(output, { count, shape });
  if (flags.watermark !== undefined) checkMarkable(output, { count, shape }, flags.watermark);
  using progress = new Progress();
  const { picture, mask, provenance } = await readInit(flags, shape, progress);
  checkHoles(model, place, mask);

  using device = await openForCommand(flags, progress);
  const fitting = fitMemory(device, model, options, { place, isBegun: picture !== undefined });
  const { weightDType } = fitting.options;
  if (fitting.notice) progress.say(fitting.notice);
  const painter = await TextToImage.create(device, model, fitting.options);
  const usual = flags.sampler ? undefined : samplerOfModel(model.denoiser);
  if (usual) progress.say(usual.notice);
  progress.update(`compiling for ${device.name}`);
  const began = performance.now(),
    watching = new Watching(output.kind, flags.preview ?? false, progress);
  using interruption = new Interruption(progress, "writing what is done");
  let stage: GenerationStage | undefined, since = began;
  const { images, verdicts } = await painter.generate({
    ...{ prompts: texts, negative, count, seed, signal: interruption.signal },
    ...(picture ? { init: picture } : {}),
    ...(mask ? { mask } : {}),
    ...(flags.strength === undefined ? {} : { strength: flags.strength }),
    ...(watching.isNeeded
      ? {
        every: Math.ceil(painter.steps / MAX_FRAMES),
        onPreview: (preview: GenerationPreview) => watching.show(preview),
      }
      : {}),
    onCut: (prompt, cut) =>
      progress.say(
        `${JSON.stringify(shorten(prompt))} is too long: what is cut is ${JSON.stringify(cut)}`,
      ),
    onProgress(now, done, total) {
      if (now !== stage) [stage, since] = [now, performance.now()];
      const left = formatLeft(done, total, (performance.now() - since) / 1000);
      const text = `${WORK[now]} ${done} of ${total}${left}`;
      // A log gets a line for each image.
      const isLogged = now === "denoise" && done && done % (total / count) === 0 && done < total;
      if (isLogged && !Deno.stderr.isTerminal()) progress.say(text);
      else progress.update(text);
    },
  });
  const isStopped = interruption.signal.aborted;
  if (!images.count) {
    progress.say("nothing is written: no image is finished");
    return INTERRUPTED;
  }
  const withheld = withheldOf(verdicts), shown = images.count - withheld.size;
  for (const [image, why] of withheld) progress.say(`image ${image} of seed ${seed} is ${why}`);
  if (!shown) {
    progress.say("nothing is written: all images are withheld");
    return isStopped ? INTERRUPTED : WITHHELD;
  }
  const { method, steps } = painter;
  const frames = watching.framesOf(images).map((frame) => hide(frame, withheld));
  const written = await writeImages(output, images, frames, {
    ...{ model: place, seed, steps, sampler: method },
    ...describeOptions({ ...usual?.options, ...readOptions(flags) }),
    prompt: texts.join(" | "),
    ...(negative ? { negative } : {}),
    ...guidance.facts,
    ...(weightDType === undefined ? {} : { weights: weightDType }),
    ...(flags.tile === undefined ? {} : { tile: flags.tile }),
    ...(flags.lora === undefined ? {} : { lora: flags.lora }),
    ...provenance,
    ...(isStopped ? { interrupted: "yes" } : {}),
  }, {
    ...{ withheld, watermark: watermarkOf(flags, progress) },
    parametersOf: (image) =>
      formatParameters({
        ...{ prompt: texts[image % texts.length], negative, steps, method, seed, image },
        ...{ guidance: guidance.options.scale!, size, model: place },
        sigmas: options.sigmas ?? usual?.options.sigmas,
        strength: picture ? strengthOf({ strength: flags.strength, mask }) : undefined,
      }),
  });
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const made = shown < count ? `${shown} of ${count}` : `${count}`;
  const tell = output.isStream ? printError : print;
  tell(
    `${written}: ${made} ${count === 1 ? "image" : "images"} in ${seconds} s` +
      (isStopped ? ", interrupted" : ""),
  );
  return isStopped ? INTERRUPTED : withheld.size ? WITHHELD : 0;
}

/** Grey in place of images that are withheld. */
function hide(frame: Samples, withheld: ReadonlyMap<number, unknown>): Samples {
  const data = frame.data.slice(), each = sizeOf(frame.shape);
  for (const image of withheld.keys()) data.fill(0, image * each, (image + 1) * each);
  return { ...frame, data };
}

const shorten = (text: string) => text.length > 40 ? `${text.slice(0, 40)}…` : text;

/** Height and width of a model's own pictures, where it says. */
export function usualSize({ denoiser, autoencoder }: TextToImageModel): (number | null)[] {
  const sides = denoisingNetwork(denoiser).itemShape.slice(0, 2);
  return sides.map((side) => side && side * autoencoder.network.factor);
}

const isSize = (size: readonly (number | null)[]): size is [height: number, width: number] =>
  size.every((side) => side !== null);

/** What flags say of the pipeline. */
export function readSettings(
  model: TextToImageModel,
  place: string,
  flags:
    & Pick<SampleFlags, "size" | "sampler" | "steps" | "tile" | "weights" | "precision">
    & Flags<typeof samplerFlags>
    & Flags<typeof guidanceFlags>,
) {
  const { factor } = model.autoencoder.network;
  const guidance = readGuidance(flags, usualGuidance.latents);
  const size = flags.size === undefined ? usualSize(model) : parseSize(flags.size);
  if (!isSize(size)) {
    throw new InputError(`${place} does not say how large its images are: give a --size`);
  }
  for (const [name, sides] of [["size", size], ["tile", [flags.tile ?? factor]]] as const) {
    if (!sides.some((n) => n % factor)) continue;
    const near = sides.map((n) => Math.max(1, Math.round(n / factor)) * factor).toReversed();
    throw new InputError(
      `--${name} ${flags[name]}: sides must be multiples of ${factor}, as ${near.join("x")}`,
    );
  }
  const { scale, ...rest } = guidance.options, { sampler, steps, tile, weights, precision } = flags;
  const options: TextToImageOptions = {
    ...{ ...readOptions(flags), size, guidance: scale!, ...rest },
    ...(sampler === undefined ? {} : { method: sampler as MethodName }),
    ...(steps === undefined ? {} : { steps }),
    ...(tile === undefined ? {} : { tile }),
    ...(weights === undefined ? {} : { weightDType: weights as WeightDType }),
    ...(precision === undefined ? {} : { precision: precision as Precision }),
  };
  return { options, size, guidance };
}

/** @throws {InputError} If the model fills holes, and there are none. */
export function checkHoles(
  { denoiser }: TextToImageModel,
  place: string,
  mask: Float32Array | undefined,
): void {
  const network = denoisingNetwork(denoiser);
  const { masked_image: hole } = network.conditions(network.itemShape.map((n) => n ?? 1));
  if (!hole || mask) return;
  throw new InputError(
    `${place} fills holes in images: its UNet is shown a mask and an image beside noise, 9 channels ` +
      "in all; give --init IMAGE and --mask IMAGE",
  );
}
