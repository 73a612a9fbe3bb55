/**
 * `ddpm sample`: generates images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Precision } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { Shape } from "../../shape.ts";
import { shippedModels } from "../../model/shipped.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import { defaultMethod, type MethodName } from "../../sample/solvers/mod.ts";
import {
  checkDeviceFlags,
  deviceFlags,
  openForCommand,
  precisionFlag,
} from "../terminal/device.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { INTERRUPTED, Interruption } from "../run/interruption.ts";
import { locate } from "../run/load_model.ts";
import { openLocated } from "../run/open_model.ts";
import { withLoras } from "../run/load_lora.ts";
import { openTextToImage } from "../run/text_to_image.ts";
import { checkDrawable, checkMarkable, checkOutput, writeImages } from "../media/picture_files.ts";
import { DEFAULT_NOISE_LEVEL, enlarge, enlargedShape, loadStages, splitModels } from "./cascade.ts";
import { noiseLevelFlag } from "./upscaling.ts";
import { debugProgram } from "../run/profile.ts";
import { classFlags, defaultModel, planClasses, readClasses } from "./class_flags.ts";
import { editFlags, readEdit } from "./edit.ts";
import { guidanceFlags } from "./guidance_flags.ts";
import { promptFlags, readPrompts } from "./prompt_flags.ts";
import { planSampling } from "./sampling_plan.ts";
import { createSampler, invert } from "./samplers.ts";
import { latentFlags, paintTexts } from "./text_to_image.ts";
import { watermarkFlags, watermarkOf } from "./watermark_flags.ts";
import { vary } from "../../sample/interpolate.ts";
import { classifierFlags, planClassifier } from "./classifier_flags.ts";
import { listMethods, readOptions, samplerFlags } from "./sampler_flags.ts";
import { checkPreview, watch } from "../terminal/sampling_run.ts";
import { print, printError, Progress } from "../terminal/progress.ts";

/** The largest batch. */
const MAX_BATCH = 64;
/** Images where nobody says how many. */
const USUAL_COUNT = 16;

/** The flags of `sample`. */
export const sampleFlags = {
  model: {
    kind: "text",
    value: "MODEL",
    default:
      "mnist; emoji for a --prompt; mnist-unconditional for images of no class that begin with one",
    help: `a pretrained model (${
      shippedModels.join(", ")
    }), a .safetensors file, the folder of a training or of a diffusers checkpoint, or hf:OWNER/NAME[@REVISION][/FOLDER] of the Hugging Face hub; behind it, with commas, super-resolution models for a cascade`,
  },
  count: {
    kind: "integer",
    min: 1,
    max: 1_000_000,
    default: `${USUAL_COUNT}, more for more classes`,
    help: "number of images",
  },
  ...samplerFlags,
  seed: {
    kind: "integer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    help: "random seed; image k of a seed does not depend on --count",
  },
  ...classFlags,
  class: { ...classFlags.class, help: `${classFlags.class.help}; drawn by chance if not given` },
  ...promptFlags,
  ...guidanceFlags,
  ...classifierFlags,
  out: {
    kind: "text",
    value: "PATH",
    default: "samples.png",
    help:
      "what to write: .png (a grid), .gif or .apng (the denoising), .safetensors (raw floats), a folder (one PNG per image), or - (a PNG on standard output; also gif:-, apng:-, safetensors:-)",
  },
  ...watermarkFlags,
  ...editFlags,
  "noise-level": {
    ...noiseLevelFlag,
    default: DEFAULT_NOISE_LEVEL,
    help: "noise added to images before the next model of a cascade enlarges them",
  },
  ...latentFlags,
  precision: precisionFlag,
  preview: {
    kind: "switch",
    help: "preview the current x₀ estimate in the terminal while sampling",
  },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function sampleCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, sampleFlags);
  if (rest.length) throw new InputError(`sample takes flags only, not ${rest[0]}`);
  if (flags.sampler === "list") {
    print(listMethods());
    return 0;
  }
  checkDeviceFlags(flags);
  checkPreview(flags.preview);
  const edits = Object.keys(editFlags).some((name) =>
    flags[name as keyof typeof editFlags] !== undefined
  );
  const { seed = 0, out = "samples.png" } = flags, prompts = await readPrompts(flags);
  const usualModel = defaultModel(flags, { isOfNone: edits, isOfText: prompts !== undefined });
  const { model: place = usualModel } = flags, output = await checkOutput(out);
  const places = await splitModels(place);
  const located = await locate(places[0]);
  const painter = places.length === 1
    ? await openTextToImage(located, flags["no-safety-checker"])
    : undefined;
  if (painter) {
    const model = await withLoras(painter.model, flags.lora);
    return await paintTexts(model, place, flags, prompts, output);
  }
  const idle = Object.keys(latentFlags).find((name) =>
    flags[name as keyof typeof latentFlags] !== undefined
  );
  if (idle) throw new InputError(`--${idle} is for models that paint texts by way of latents`);
  const loaded = await openLocated(places[0], located);
  const shape = shapeOf(loaded, places[0]), { autoencoder } = loaded;
  const painted = paintedShape(loaded, shape);
  if (autoencoder && places.length > 1) {
    throw new InputError(
      `Cannot use ${places[0]} in a cascade: it is a model of latents, which paints by itself only`,
    );
  }
  using progress = new Progress();
  const edit = await readEdit(
    ...[flags, painted, flags.sampler as MethodName | undefined, progress] as const,
    autoencoder?.network.factor,
  );
  const { variation } = edit, isVaried = variation !== undefined;
  if (isVaried && flags.sampler && flags.sampler !== "ddim") {
    throw new InputError(
      "--variation samples with ddim: leave out --sampler",
    );
  }
  // Clipping cannot be inverted.
  const model = isVaried
    ? { ...loaded, schedule: { ...loaded.schedule, clipSample: false, thresholding: false } }
    : loaded;
  const judge = await planClassifier(flags, model, shape);
  const plan = await planSampling(model, {
    ...{ place, shape, flags, seed, prompts, edit, judge },
    counts: { count: flags.count, usual: USUAL_COUNT },
    chooseClasses: (known, count) =>
      planClasses(flags, known, place, {
        ...{ count, usual: USUAL_COUNT, seed, prefersNone: edits },
      }),
  });
  const { count, steps, said, usual, classes: { labels, names } } = plan, { method } = plan.sampler;
  const { columns } = said ?? plan.classes;
  const settings = {
    ...readOptions(flags),
    ...{ method: usual ? defaultMethod : method, labels, noiseLevel: flags["noise-level"] },
  };
  const { stages, factor } = await loadStages(places, loaded, {
    ...{ ...settings, kind: output.kind },
    ...(flags.steps === undefined ? {} : { steps: flags.steps }),
  });
  const drawn = { count, shape: enlargedShape(painted, factor) };
  await checkDrawable(output, drawn, columns);
  if (flags.watermark !== undefined) checkMarkable(output, drawn, flags.watermark, columns);
  const other = flags["other-class"];
  const others = other === undefined ? [] : readClasses("other-class", other, plan.known, place);
  if (stages.length) progress.prefix = `model 1 of ${places.length}: `;
  using device = await openForCommand(flags, progress);
  if (usual) progress.say(usual.notice);
  if (plan.classes.notice) progress.say(`class: ${plan.classes.notice}`);
  if (said?.notice) progress.say(said.notice);
  progress.update(`compiling for ${device.name}`);
  const batchSize = Math.ceil(count / Math.ceil(count / MAX_BATCH));
  const began = performance.now();
  const precision = (flags.precision ?? "f32") as Precision;
  using programs = new DisposableStack();
  const sampler = programs.use(
    await createSampler(device, model, { ...plan.sampler, batchSize, precision }),
  );
  debugProgram(progress, sampler.describe());
  const start = variation && vary(
    await invert(device, model, steps, variation.of, {
      ...(labels ? { labels: labels.slice(0, 1) } : {}),
      onProgress: (done, total) => progress.update(`inverting: step ${done} of ${total}`),
    }),
    variation.amount,
    { seed, count },
  );
  const first = await watch(
    sampler,
    output.kind,
    flags.preview ?? false,
    progress,
    {
      ...plan.sample,
      ...(start ? { start } : {}),
      conditions: {
        ...plan.sample.conditions,
        ...(others.length
          ? { other_labels: Array.from({ length: count }, (_, k) => others[k % others.length]) }
          : {}),
      },
    },
    edit.finish,
  );
  programs.dispose();
  using interruption = new Interruption(progress, "writing what is done");
  const { images, isStopped } = stages.length && !first.isStopped
    ? await enlarge(device, first.images, stages, progress, {
      ...{ ...settings, seed, batchSize, precision, signal: interruption.signal },
      ...(flags.steps === undefined ? {} : { steps: flags.steps }),
    })
    : first;
  if (!images.count || stages.length) {
    progress.say("nothing is written: no image is finished");
    return INTERRUPTED;
  }
  const written = await writeImages(output, images, first.frames, {
    ...plan.provenance,
    ...(isStopped ? { interrupted: "yes" } : {}),
  }, { columns, classes: names, watermark: watermarkOf(flags, progress) });
  progress.clear();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const made = isStopped ? `${images.count} of ${count}` : `${count}`;
  const end = isStopped ? ", interrupted" : "";
  const tell = output.isStream ? printError : print;
  tell(`${written}: ${made} ${count === 1 ? "image" : "images"} in ${seconds} s${end}`);
  return isStopped ? INTERRUPTED : 0;
}

/**
 * The shape of a model's images.
 *
 * @throws {InputError} If it makes none by itself, or leaves their size open.
 */
export function shapeOf(model: Model, place: string): Shape {
  const network = denoisingNetwork(model), { itemShape, multiple = 1 } = network;
  if ("encoder_hidden_states" in network.conditions(itemShape.map((n) => n ?? multiple))) {
    throw new InputError(
      `Cannot sample from ${place}: the ${network.className} needs a text, as an encoder of texts ` +
        "gives it; only a whole pipeline, with text encoder and autoencoder, makes images",
    );
  }
  if (itemShape.every((n) => n !== null)) return itemShape;
  throw new InputError(`Cannot sample from ${place}: its configuration has no sample_size`);
}
