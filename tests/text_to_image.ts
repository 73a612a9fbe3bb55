/**
 * Models that paint texts, of networks that take no time, with weights that were never trained.
 *
 * @module
 */

import { initializeModel } from "../src/model/model.ts";
import { nameTensors } from "../src/model/tensors.ts";
import { autoencoderNetwork, formatNetwork, parseNetwork } from "../src/model/network.ts";
import { parseTextEncoder } from "../src/model/text_encoder.ts";
import type { TextToImageModel } from "../src/model/text_to_image.ts";
import { initializeNetwork, type Weighted } from "../src/model/weights.ts";
import { writeSafetensors } from "../src/formats/safetensors.ts";
import { ByteTokenizer } from "../src/text/byte_tokenizer.ts";
import { fetchClipVocabulary } from "../src/text/clip_vocabulary.ts";
import type { Folder } from "./cli/cli.ts";

/** Initial weights alone make networks that predict zeros. */
const stirred = <T extends { readonly parameters: Weighted["parameters"] }>(network: T): T => ({
  ...network,
  parameters: (network.parameters as Float32Array).map((x, i) => x + 0.1 * Math.sin(i)),
});

const scheduler = {
  _class_name: "DDIMScheduler",
  ...{ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012, clip_sample: false },
  ...{ set_alpha_to_one: false, steps_offset: 1, timestep_spacing: "leading" },
};

/** Pictures of 16 × 16 by latents of 8 × 8, half as many pixels a side. */
export function tinyTextToImage(
  { channels = 4, vocabulary = 300, scheduler: other = {}, scalingFactor = 0.18215 }: {
    readonly channels?: 4 | 9;
    readonly vocabulary?: number;
    readonly scheduler?: Readonly<Record<string, unknown>>;
    readonly scalingFactor?: number;
  } = {},
): TextToImageModel {
  const noise = { ...scheduler, ...other };
  const denoiser = initializeModel(
    parseNetwork({
      _class_name: "UNet2DConditionModel",
      ...{ sample_size: 8, in_channels: channels, out_channels: 4, cross_attention_dim: 8 },
      ...{ block_out_channels: [8], layers_per_block: 1, norm_num_groups: 4 },
      ...{ down_block_types: ["CrossAttnDownBlock2D"], up_block_types: ["CrossAttnUpBlock2D"] },
      attention_head_dim: 2,
    }),
    noise,
    0,
  );
  const autoencoder = autoencoderNetwork(parseNetwork({
    _class_name: "AutoencoderKL",
    ...{ block_out_channels: [8, 8], norm_num_groups: 4, latent_channels: 4, sample_size: 16 },
    down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    scaling_factor: scalingFactor,
  }));
  const textEncoder = parseTextEncoder({
    architectures: ["CLIPTextModel"],
    ...{ vocab_size: vocabulary, hidden_size: 8, intermediate_size: 16 },
    ...{ num_hidden_layers: 1, num_attention_heads: 2 },
  });
  return {
    denoiser: { ...stirred(denoiser), scheduler: noise },
    textEncoder: stirred(initializeNetwork(textEncoder, 1)),
    tokenizer: new ByteTokenizer({ length: 77 }),
    autoencoder: stirred(initializeNetwork(autoencoder, 2)),
  };
}

/** Writes a model as a pipeline of diffusers, with the tokenizer of CLIP. */
export async function writePipeline(
  folder: Folder,
  name: string,
  { denoiser, textEncoder, autoencoder, safetyChecker }: TextToImageModel,
): Promise<void> {
  const pieces = {
    ...{ unet: denoiser, text_encoder: textEncoder, vae: autoencoder },
    ...(safetyChecker ? { safety_checker: safetyChecker } : {}),
  };
  for (const [piece, weighted] of Object.entries(pieces)) {
    await Deno.mkdir(folder.at(`${name}/${piece}`), { recursive: true });
    const { network, parameters } = weighted, isOther = /^(text|safety)/.test(piece);
    await folder.write(`${name}/${piece}/config.json`, formatNetwork(network));
    const file = isOther ? "model" : "diffusion_pytorch_model";
    const bytes = writeSafetensors([...nameTensors(network.layout, parameters)], {});
    await folder.write(`${name}/${piece}/${file}.safetensors`, bytes);
  }
  const { ids, merges } = await fetchClipVocabulary();
  await Deno.mkdir(folder.at(`${name}/tokenizer`));
  await folder.write(`${name}/tokenizer/vocab.json`, Object.fromEntries(ids));
  const lines = merges.map(([left, right]) => `${left} ${right}`).join("\n");
  await folder.write(`${name}/tokenizer/merges.txt`, `#version: 0.2\n${lines}\n`);
  await Deno.mkdir(folder.at(`${name}/scheduler`));
  await folder.write(`${name}/scheduler/scheduler_config.json`, denoiser.scheduler!);
  await folder.write(`${name}/model_index.json`, {
    _class_name: "StableDiffusionPipeline",
    ...{ unet: ["diffusers", "UNet2DConditionModel"], vae: ["diffusers", "AutoencoderKL"] },
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    scheduler: ["diffusers", denoiser.scheduler!._class_name],
    ...(safetyChecker
      ? {
        safety_checker: ["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor: ["transformers", "CLIPImageProcessor"],
      }
      : {}),
  });
  if (!safetyChecker) return;
  await Deno.mkdir(folder.at(`${name}/feature_extractor`));
  const { size, crop, mean, std } = safetyChecker.processor;
  await folder.write(`${name}/feature_extractor/preprocessor_config.json`, {
    ...{ size: { shortest_edge: size }, crop_size: { height: crop, width: crop } },
    ...{ image_mean: mean, image_std: std },
  });
}
