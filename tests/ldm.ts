/**
 * A small model of latent diffusion that reads no texts, as this project has it and as CompVis's `ldm`
 * saves it: random weights, and the autoencoder of `tests/fixtures/autoencoder/vq`.
 *
 * @module
 */

import { parseSchedule } from "../src/diffusion/schedule.ts";
import type { FileTensor } from "../src/formats/safetensors.ts";
import { assembleModel, type Model } from "../src/model/model.ts";
import { autoencoderNetwork, parseNetwork } from "../src/model/network.ts";
import { assembleNetwork } from "../src/model/weights.ts";
import { formulaTensors, formulaWeights } from "./formula.ts";
import { fixtureOf } from "./model/families/golden.ts";

const unet = {
  ...{ in_channels: 3, out_channels: 3, model_channels: 8, num_res_blocks: 1 },
  ...{ channel_mult: [1, 2], attention_resolutions: [2], num_head_channels: 4 },
};
const groups = { norm_num_groups: 4 };

/** What lies beside the file: the settings of the original, and groups, which it has fixed. */
export const ldmConfig = {
  model: {
    params: {
      ...{ linear_start: 0.0015, linear_end: 0.0195, timesteps: 1000, image_size: 8 },
      scale_factor: 1,
      unet_config: { target: "UNetModel", params: { image_size: 8, ...unet } },
      cond_stage_config: "__is_unconditional__",
    },
  },
  ...{ unet: groups, vae: groups },
};

const network = parseNetwork({
  ...{ _class_name: "GuidedDiffusionUNet", ...unet, ...groups, sample_size: 8 },
  use_new_attention_order: false,
});

/** Random weights, others for another `seed`. */
function weights(seed: string): Map<string, FileTensor> {
  const own = formulaWeights(network);
  const shapes = [...own].map(([name, { shape }]) => [seed + name, [...shape]] as const);
  return new Map(
    formulaTensors(shapes).entries()
      .map(([name, tensor]) => [name.slice(seed.length), tensor]),
  );
}

/** The model, put together from its two networks. */
export async function ldmModel(seed = ""): Promise<Model> {
  const folder = fixtureOf("autoencoder/vq"), config = await folder.json("config.json");
  const { tensors } = await folder.tensors("diffusion_pytorch_model.safetensors");
  const { sample_size: _, ...fields } = config;
  const told = { ...fields, vq_embed_dim: config.latent_channels, scaling_factor: 1 };
  const coder = autoencoderNetwork(parseNetwork(told));
  const schedule = parseSchedule({
    ...{ beta_schedule: "scaled_linear", beta_start: 0.0015, beta_end: 0.0195 },
    ...{ clip_sample: false, steps_offset: 1, set_alpha_to_one: false },
  });
  return assembleModel(network, schedule, weights(seed), "the model", {
    autoencoder: assembleNetwork(coder, tensors, "the autoencoder"),
  });
}

/** The tensors of the file; attention has convolutions over one axis. */
export async function ldmTensors(seed = ""): Promise<Map<string, FileTensor>> {
  const { tensors } = await fixtureOf("autoencoder/vq-ldm").tensors("model.ckpt");
  const file = new Map<string, FileTensor>();
  for (const [name, tensor] of weights(seed)) {
    const isAttention = /\.(qkv|proj_out)\.weight$/.test(name);
    const shape = isAttention ? [...tensor.shape.slice(0, 2), 1] : tensor.shape;
    file.set(`state_dict.model.diffusion_model.${name}`, { ...tensor, shape });
  }
  for (const [name, tensor] of tensors) {
    if (name.startsWith("state_dict.first_stage_model.")) file.set(name, tensor);
  }
  return file;
}
