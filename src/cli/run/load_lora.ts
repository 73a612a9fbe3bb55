/**
 * Files of LoRA of the command line, and models with them.
 *
 * @module
 */

import { basename, dirname } from "@std/path";
import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { mergeLora } from "../../model/lora.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { openHub } from "../hub/hub_folder.ts";
import { isHubPlace } from "../hub/place.ts";
import { FileBytes, kindOf } from "../terminal/files.ts";
import type { Flag } from "../terminal/flags.ts";
import { localFolder } from "./model_folder.ts";

/** What commands that paint texts with such files understand. */
export const loraFlags = {
  lora: {
    kind: "text",
    value: "FILES",
    help:
      "changes of the weights, as FILE or hf:OWNER/NAME/FILE, and behind it what they are multiplied with: style.safetensors:0.8; several with commas",
  },
} as const satisfies Record<string, Flag>;

/** What diffusers calls such a file in a folder. */
const USUAL = ["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];

/** A file, and what its changes are multiplied with. */
export interface LoraPlace {
  readonly place: string;
  readonly scale: number;
}

/**
 * Reads the flag.
 *
 * @throws {InputError} If it is no list of files.
 */
export function parseLoras(text: string): LoraPlace[] {
  return text.split(",").map((part) => {
    const [, place, scale] = /^\s*(.*?)(?::([-+]?[\d.]+))?\s*$/.exec(part)!;
    const value = scale === undefined ? 1 : Number(scale);
    if (place && Number.isFinite(value)) return { place, scale: value };
    throw new InputError(
      `--lora must be files with commas between them, each with a number behind it or without, as ` +
        `style.safetensors:0.8, not ${text}`,
    );
  });
}

/**
 * A model with the changes of files in its weights. They are read when its weights are.
 *
 * @param text As the flag has them; nothing for none.
 * @throws {InputError} If there is no such file, or it is for another model.
 */
export async function withLoras(
  model: TextToImageModel,
  text?: string,
): Promise<TextToImageModel> {
  let merged = model;
  for (const { place, scale } of text === undefined ? [] : parseLoras(text)) {
    const path = await findLora(place);
    const { tensors, metadata } = await readTensorFile(new FileBytes(path), path);
    merged = mergeLora(merged, tensors, { scale, what: place, alphas: alphasOf(metadata, place) });
  }
  return merged;
}

/** Where a file is on the disk. */
async function findLora(place: string): Promise<string> {
  const kind = isHubPlace(place) ? "hub" : await kindOf(place);
  if (kind === "nothing") {
    throw new InputError(`Cannot load the LoRA ${place}: there is no such file or folder`);
  }
  const { folder, file } = kind === "hub"
    ? await openHub(place)
    : kind === "file"
    ? { folder: localFolder(dirname(place)), file: basename(place) }
    : { folder: localFolder(place), file: undefined };
  for (const name of file === undefined ? USUAL : [file]) {
    const path = await folder.find(name);
    if (path !== undefined) return path;
  }
  throw new InputError(`Cannot load the LoRA ${place}: it holds no ${USUAL[0]}; name its file`);
}

/** Where later versions of diffusers write the settings of peft, and those that are understood. */
const SETTINGS = "lora_adapter_metadata";
const settings = (network: string) => ({
  [`${network}.lora_alpha`]: z.number().optional(),
  ...Object.fromEntries(
    ["use_dora", "use_rslora"].map((name) => [`${network}.${name}`, z.literal(false).optional()]),
  ),
  ...Object.fromEntries(
    ["alpha_pattern", "rank_pattern"].map((name) => [
      `${network}.${name}`,
      z.record(z.string(), z.never()).nullish(),
    ]),
  ),
});
const settingsSchema = z.looseObject({ ...settings("unet"), ...settings("text_encoder") });

/** Alpha of each network, where the header of a file says it. */
function alphasOf(
  metadata: Readonly<Record<string, string>>,
  what: string,
): Partial<Record<"unet" | "text_encoder", number>> {
  const text = metadata[SETTINGS];
  if (text === undefined) return {};
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new InputError(`Cannot read ${SETTINGS} of ${what}: it is no JSON`);
  }
  const found = parseWith(settingsSchema, json, `${SETTINGS} of ${what}`);
  const alphaOf = (network: string) => found[`${network}.lora_alpha`] as number | undefined;
  const [unet, text_encoder] = [alphaOf("unet"), alphaOf("text_encoder")];
  return {
    ...(unet === undefined ? {} : { unet }),
    ...(text_encoder === undefined ? {} : { text_encoder }),
  };
}
