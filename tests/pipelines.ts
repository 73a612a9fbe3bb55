/**
 * Pipelines from texts to pictures against traces of those of diffusers.
 *
 * @module
 */

import { join } from "@std/path";
import type { Device } from "../src/gpu/device.ts";
import { constant } from "../src/gpu/tensor.ts";
import { parseSchedule } from "../src/diffusion/schedule.ts";
import { assembleModel } from "../src/model/model.ts";
import { autoencoderNetwork, parseNetwork } from "../src/model/network.ts";
import { parseTextEncoder } from "../src/model/text_encoder.ts";
import type { TextToImageModel } from "../src/model/text_to_image.ts";
import { assembleNetwork } from "../src/model/weights.ts";
import { START_STREAM } from "../src/sample/interpolate.ts";
import type { Samples } from "../src/sample/options.ts";
import { TextToImage } from "../src/sample/text_to_image.ts";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import {
  compare,
  type Comparison,
  largest,
  type Numbers,
  readJson,
  readTensors,
} from "./comparison.ts";
import { channelsLast } from "./families.ts";

/** Latents may differ by this, and pictures of 0 to 255 by this. */
const LATENTS = 1e-3, PICTURES = 2;

/** What a trace says of its run. */
interface Trace {
  readonly weights?: Readonly<Record<"unet" | "vae" | "text_encoder", string>>;
  readonly num_inference_steps: number;
  readonly strength?: number | null;
  readonly guidance_scale: number;
  readonly height: number;
  readonly width: number;
}

const difference = (actual: Numbers, expected: Numbers): number =>
  actual.length === expected.length
    ? largest(Array.from(expected, (x, i) => actual[i] - x))
    : Infinity;

/** The tensor as items of channels last. */
function samplesOf(tensor: FileTensor): Samples {
  const { shape: [count, ...shape], values } = channelsLast(tensor);
  return { count, shape, data: Float32Array.from(values) };
}

/** Text k is `k`, what to lead away from `not k`. */
function tokensOf(trace: ReadonlyMap<string, FileTensor>): TextToImageModel["tokenizer"] {
  const rows = (name: string) => {
    const tensor = trace.get(name)!, [count, length] = tensor.shape, ids = toFloat32(tensor);
    return Array.from(
      { length: count },
      (_, k) => Int32Array.from(ids.subarray(k * length, (k + 1) * length)),
    );
  };
  const texts = new Map<string, Int32Array<ArrayBuffer>>(
    ["", "not "].flatMap((prefix) =>
      rows(prefix ? "negative_input_ids" : "input_ids").map((ids, k) =>
        [`${prefix}${k}`, ids] as const
      )
    ),
  );
  const length = trace.get("input_ids")!.shape[1];
  return { length, vocabulary: 300, encode: (text) => ({ ids: texts.get(text)!, cut: "" }) };
}

/** The pieces of a case. */
async function readPieces(
  folder: string,
  { weights = { unet: "unet", vae: "vae", text_encoder: "text_encoder" } }: Trace,
): Promise<Omit<TextToImageModel, "tokenizer">> {
  const read = async (piece: keyof typeof weights, file: string) => {
    const path = join(folder, weights[piece]);
    const fields = await readJson(join(path, "config.json"));
    return [fields, await readTensors(join(path, file))] as const;
  };
  const file = "diffusion_pytorch_model.safetensors";
  const [unet, vae, text] = [
    await read("unet", file),
    await read("vae", file),
    await read("text_encoder", "model.safetensors"),
  ];
  const scheduler = await readJson(join(folder, "scheduler", "scheduler_config.json"));
  const schedule = parseSchedule(scheduler);
  return {
    denoiser: assembleModel(parseNetwork(unet[0]), schedule, unet[1], folder, { scheduler }),
    autoencoder: assembleNetwork(autoencoderNetwork(parseNetwork(vae[0])), vae[1], folder),
    textEncoder: assembleNetwork(parseTextEncoder(text[0]), text[1], folder),
  };
}

/** Compares latents after every step, and pictures, with those of a trace. */
export async function comparePipeline(device: Device, folder: string): Promise<Comparison[]> {
  const settings = await readTrace(folder);
  if (!settings) return [];
  const trace = await readTensors(join(folder, "trace.safetensors"));
  const model = { ...await readPieces(folder, settings), tokenizer: tokensOf(trace) };
  const { num_inference_steps: steps, guidance_scale: guidance, height, width } = settings;
  const samples = (name: string) => {
    const tensor = trace.get(name);
    return tensor && samplesOf(tensor);
  };
  const start = samples("latents.init")!, image = samples("image_in"), noise = samples("noise");
  const drawn = samples("image_in.noise") ?? samples("masked_image.noise"), mask = samples("mask");
  const painter = await TextToImage.create(device, model, {
    ...{ steps, guidance, size: [height, width], batchSize: start.count },
    ...(noise
      ? {
        noise: (shape, _, stream) => {
          if (stream !== START_STREAM) throw new Error("The traces draw no noise but the first");
          return constant(noise.data, shape);
        },
      }
      : {}),
  });
  const latents = new Map<string, Numbers>();
  const prompts = Array.from({ length: start.count }, (_, k) => String(k));
  const result = await painter.generate({
    ...{ prompts, negative: prompts.map((k) => `not ${k}`) },
    // What begins with a picture finds its start by itself.
    ...(image
      ? { init: image, encodeNoise: drawn!.data, strength: settings.strength! }
      : { start }),
    ...(mask ? { mask: mask.data } : {}),
    onPreview: ({ step, noisy }) => void latents.set(`step ${step}`, noisy.data),
  });
  // Names of what comes after evaluations; the first of PNDM's is redone by the second.
  const names = [...trace.keys()].filter((name) => /^latents\.\d+$/.test(name)).sort();
  const first = names.length - latents.size;
  const pairs = names.slice(first).map((name, i) => ({
    name,
    // After the last step a mask lets through what was known, without the last noise.
    actual: i === latents.size - 1 ? result.latents.data : latents.get(`step ${i + 1}`)!,
    expected: samples(name)!.data,
  }));
  const bytes = (values: Numbers) =>
    Array.from(values, (x) => 255 * Math.max(0, Math.min(1, x / 2 + 0.5)));
  return [
    compare(`${folder} latents`, LATENTS, pairs, difference),
    compare(`${folder} decoded`, LATENTS, [
      { name: "decoded", actual: result.images.data, expected: samples("decoded")!.data },
    ], difference),
    compare(`${folder} pictures`, PICTURES, [{
      name: "image",
      actual: bytes(result.images.data),
      expected: Array.from(samples("image")!.data, (x) => 255 * x),
    }], difference),
  ];
}

/** The settings of a case; other folders have none. */
async function readTrace(folder: string): Promise<Trace | undefined> {
  try {
    return await readJson(join(folder, "trace.json"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
