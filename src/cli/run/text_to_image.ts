/**
 * Loading what paints texts.
 *
 * @module
 */

import { join } from "@std/path";
import { parseSchedule } from "../../diffusion/schedule.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { assembleModel } from "../../model/model.ts";
import { autoencoderNetwork, parseNetwork } from "../../model/network.ts";
import { parseTextEncoder } from "../../model/text_encoder.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { assembleNetwork } from "../../model/weights.ts";
import { ClipTokenizer } from "../../text/clip_tokenizer.ts";
import { fetchClipVocabulary } from "../../text/clip_vocabulary.ts";
import { FileBytes, kindOf, readJson } from "../terminal/files.ts";

/**
 * Loads the folder of a pipeline of diffusers that reads texts by CLIP.
 *
 * @returns `undefined` if it is something else.
 * @throws {InputError} If it is damaged.
 */
export async function loadTextToImage(place: string): Promise<TextToImageModel | undefined> {
  for (const piece of ["unet", "vae", "text_encoder", "scheduler"]) {
    if (await kindOf(join(place, piece)) !== "folder") return undefined;
  }
  const read = async (piece: string, file: string) => {
    const path = join(place, piece, file);
    const { tensors } = await readTensorFile(new FileBytes(path), path);
    return [await readJson(join(place, piece, "config.json")), tensors, path] as const;
  };
  const weights = "diffusion_pytorch_model.safetensors";
  const [unet, vae, text] = [
    await read("unet", weights),
    await read("vae", weights),
    await read("text_encoder", "model.safetensors"),
  ];
  const scheduler = await readJson(join(place, "scheduler", "scheduler_config.json")) as Record<
    string,
    unknown
  >;
  const textEncoder = assembleNetwork(parseTextEncoder(text[0]), text[1], text[2]);
  return {
    denoiser: assembleModel(parseNetwork(unet[0]), parseSchedule(scheduler), unet[1], unet[2], {
      scheduler,
    }),
    textEncoder,
    tokenizer: new ClipTokenizer(await fetchClipVocabulary(), {
      length: textEncoder.network.tokens,
    }),
    autoencoder: assembleNetwork(autoencoderNetwork(parseNetwork(vae[0])), vae[1], vae[2]),
  };
}
