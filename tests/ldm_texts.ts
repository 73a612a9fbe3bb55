/**
 * A small latent diffusion that reads texts with BERT, as folders of diffusers and as one file: the UNet
 * and the autoencoders of `tests/fixtures`, and an encoder of random weights.
 *
 * @module
 */

import { makeTables } from "../src/diffusion/betas.ts";
import { parseSchedule } from "../src/diffusion/schedule.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../src/formats/safetensors.ts";
import { initializeModel } from "../src/model/model.ts";
import { formatNetwork, parseNetwork } from "../src/model/network.ts";
import { fileShape } from "../src/model/parameters.ts";
import { nameTensors } from "../src/model/tensors.ts";
import { parseTextEncoder } from "../src/model/text_encoder.ts";
import { type Changes, fixture } from "./cli/pipelines.ts";
import { formulaTensors } from "./formula.ts";

/** The noise of latent diffusion. */
export const ldmNoise = {
  ...{ _class_name: "DDIMScheduler", num_train_timesteps: 1000, beta_schedule: "scaled_linear" },
  ...{ beta_start: 0.0015, beta_end: 0.0195, clip_sample: false, set_alpha_to_one: false },
  ...{ steps_offset: 1, prediction_type: "epsilon" },
};

const own = parseTextEncoder({ _class_name: "BERTEmbedder", n_embed: 24, n_layer: 1 });
const inDiffusers = parseTextEncoder({
  architectures: ["LDMBertModel"],
  ...{ d_model: 24, encoder_layers: 1, encoder_ffn_dim: 96, pad_token_id: 0 },
});

/** The weights of the encoder by the names that one of the projects has. */
const bertWeights = (names: typeof own) =>
  [...formulaTensors(own.layout.specs.map((spec) => [spec.name, fileShape(spec)]))].map(
    ([, tensor], i) => ({
      name: names.layout.specs[i].name,
      ...{ shape: tensor.shape, values: toFloat32(tensor) },
    }),
  );

const DIFFUSION = "diffusion_pytorch_model.safetensors";
const read = async (path: string) => await fixture(`pipelines/txt2img/${path}`);

/** The pipeline in folders; with latents of three channels that a `VQModel` makes, if so wanted. */
export async function ldmTextFolder({ isVq = false } = {}): Promise<Changes> {
  const fields = JSON.parse(new TextDecoder().decode(await read("unet/config.json")));
  const three = parseNetwork({ ...fields, in_channels: 3, out_channels: 3 });
  const { network, parameters } = initializeModel(three, ldmNoise, 0);
  const stirred = parameters.map((x, i) => x + 0.1 * Math.sin(i));
  const vae = isVq ? "autoencoder/vq" : "pipelines/txt2img/vae";
  return {
    "model_index.json": {
      _class_name: "LDMTextToImagePipeline",
      ...{ bert: ["latent_diffusion", "LDMBertModel"], scheduler: ["diffusers", "DDIMScheduler"] },
      tokenizer: ["transformers", "BertTokenizer"],
      unet: ["diffusers", "UNet2DConditionModel"],
      vqvae: ["diffusers", isVq ? "VQModel" : "AutoencoderKL"],
    },
    "scheduler/scheduler_config.json": ldmNoise,
    "unet/config.json": isVq ? formatNetwork(network) : fields,
    [`unet/${DIFFUSION}`]: isVq
      ? writeSafetensors(nameTensors(network.layout, stirred), {})
      : await read(`unet/${DIFFUSION}`),
    "vqvae/config.json": await fixture(`${vae}/config.json`),
    [`vqvae/${DIFFUSION}`]: await fixture(`${vae}/${DIFFUSION}`),
    "bert/config.json": formatNetwork(inDiffusers),
    "bert/model.safetensors": writeSafetensors(bertWeights(inDiffusers), {}),
  };
}

/** The same in one file of its own code, with its table of the noise, and what lies beside it. */
export async function ldmTextFile(): Promise<Changes> {
  const { tensors } = readSafetensors(await fixture("pipelines/single-file/model.safetensors"));
  const others = [...tensors].filter(([name, { dtype }]) =>
    dtype === "F32" && !/^cond_stage_model\.|(^|\.)betas$/.test(name)
  ).map(([name, tensor]) => ({ name, shape: tensor.shape, values: toFloat32(tensor) }));
  const text = await fixture("pipelines/single-file/config.json");
  const { unet, vae } = JSON.parse(new TextDecoder().decode(text));
  const { betas } = makeTables(parseSchedule(ldmNoise));
  const place = "cond_stage_model.transformer.";
  return {
    "model.safetensors": writeSafetensors([
      ...others,
      ...bertWeights(own).map((tensor) => ({ ...tensor, name: place + tensor.name })),
      { name: "betas", shape: [betas.length], values: Float32Array.from(betas) },
    ], {}),
    "config.json": { unet, vae },
  };
}
