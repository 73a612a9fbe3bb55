/**
 * The autoencoders of latent diffusion and Stable Diffusion as CompVis's `ldm` saves them, alone or as
 * the first stage in the file of a whole model. Their layers are those of pesser/pytorch_diffusion.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { toFloat32 } from "../../formats/safetensors.ts";
import type { Fields } from "../network.ts";
import { originalNames } from "./ddpm_original.ts";
import {
  agree,
  below,
  countOf,
  type Family,
  type FamilyNetwork,
  levelsOf,
  rename,
  sizeIn,
  type TensorMap,
} from "./family.ts";

/** Where it may be in a file. */
const PLACES = ["first_stage_model.", ""].flatMap((place) => [`state_dict.${place}`, place]);
/** What it is told by. */
const MARK = "encoder.down.0.block.0.conv1.weight";
/** What may lie beside it: networks of its losses, and averages. */
const BESIDE = /^(loss|model_ema)\./;
/** What latents are multiplied with in Stable Diffusion, and in diffusers if nothing is said. */
const USUAL_SCALE = 0.18215;
const USUAL_GROUPS = 32;

const number = z.int().min(0);
/** As in the original's files of settings, with the groups that it has fixed and the model's scale. */
const schema = z.looseObject({
  target: z.string(),
  params: z.looseObject({
    embed_dim: number,
    n_embed: number,
    ddconfig: z.strictObject({
      double_z: z.boolean(),
      z_channels: number,
      resolution: z.int().min(1),
      in_channels: number,
      out_ch: number,
      ch: number,
      ch_mult: z.array(number),
      num_res_blocks: number,
      attn_resolutions: z.array(number),
      dropout: z.number(),
      resamp_with_conv: z.literal(true),
      attn_type: z.enum(["vanilla", "vanilla-xformers"]),
    }).partial(),
  }).partial(),
  norm_groups: z.int().min(1),
  scale_factor: z.number().positive(),
}).partial();

/** The configuration of diffusers for what tensors below a place are of, without class and scale. */
function inferNetwork(tensors: TensorMap): Fields {
  const levels = levelsOf(tensors, "encoder.down.*.block.0."),
    each = Array.from({ length: levels });
  const has = (name: string) => tensors.has(`${name}.q.weight`);
  const down = each.map((_, i) => has(`encoder.down.${i}.attn.0`));
  const up = each.map((_, i) => has(`decoder.up.${levels - 1 - i}.attn.0`));
  return {
    in_channels: sizeIn(tensors, "encoder.conv_in.weight", 1),
    out_channels: sizeIn(tensors, "decoder.conv_out.weight", 0),
    block_out_channels: each.map((_, i) =>
      sizeIn(tensors, `encoder.down.${i}.block.0.conv1.weight`, 0)
    ),
    layers_per_block: countOf(tensors, "encoder.down.0.block.*."),
    down_block_types: down.map((attends) => `${attends ? "Attn" : ""}DownEncoderBlock2D`),
    up_block_types: up.map((attends) => `${attends ? "Attn" : ""}UpDecoderBlock2D`),
    latent_channels: sizeIn(tensors, "decoder.conv_in.weight", 1),
    mid_block_add_attention: has("encoder.mid.attn_1"),
  };
}

/** What sets the two classes apart. */
function inferCodes(tensors: TensorMap, latentChannels: number): Fields {
  const width = sizeIn(tensors, "post_quant_conv.weight", 1);
  if (tensors.has("quantize.embedding.weight")) {
    const entries = sizeIn(tensors, "quantize.embedding.weight", 0);
    return { _class_name: "VQModel", num_vq_embeddings: entries, vq_embed_dim: width };
  }
  if (width === latentChannels) return { _class_name: "AutoencoderKL" };
  throw new InputError(
    `its latents of ${width} channels are ${latentChannels} within the network, which AutoencoderKL ` +
      "cannot be",
  );
}

/** Its tensors under the names of diffusers. */
function renamed(tensors: TensorMap, levels: number): TensorMap {
  const halves = ["encoder.", "decoder."].flatMap((half) =>
    [...rename(below(tensors, half), originalNames(levels))].map(([name, tensor]) =>
      [half + name, tensor] as const
    )
  );
  const rest = [...tensors].filter(([name]) => !/^(en|de)coder\./.test(name));
  return new Map([...halves, ...rest]);
}

/** The place that it has in a file. */
const placeOf = (tensors: TensorMap) => PLACES.find((place) => tensors.has(place + MARK));

function read(tensors: TensorMap, config: unknown): FamilyNetwork {
  const given = parseWith(schema, config, "configuration of an autoencoder of latent diffusion");
  const place = placeOf(tensors)!, { ddconfig, embed_dim, n_embed } = given.params ?? {};
  const used = new Map([...below(tensors, place)].filter(([name]) => !BESIDE.test(name)));
  const network = inferNetwork(used), channels = network.block_out_channels as number[];
  const codes = inferCodes(used, network.latent_channels as number);
  const isVq = codes._class_name === "VQModel";
  const told = {
    ...ddconfig,
    ...(embed_dim === undefined ? {} : { embed_dim }),
    ...(n_embed === undefined ? {} : { n_embed }),
  };
  agree(told, {
    ...{ in_channels: network.in_channels, out_ch: network.out_channels, double_z: !isVq },
    ...{ z_channels: network.latent_channels, num_res_blocks: network.layers_per_block },
    ...(ddconfig?.ch ? { ch_mult: channels.map((n) => n / ddconfig.ch!) } : {}),
    embed_dim: sizeIn(used, "post_quant_conv.weight", 1),
    ...(isVq ? { n_embed: codes.num_vq_embeddings } : {}),
  });
  const scale = ["state_dict.", ""].map((root) => tensors.get(`${root}scale_factor`)).find(Boolean);
  const known = scale ? toFloat32(scale)[0] : given.scale_factor;
  return {
    network: {
      ...network,
      ...codes,
      ...(ddconfig?.resolution ? { sample_size: ddconfig.resolution } : {}),
      norm_num_groups: given.norm_groups ?? USUAL_GROUPS,
      scaling_factor: known ?? USUAL_SCALE,
    },
    tensors: renamed(used, channels.length),
    guesses: known === undefined
      ? [
        `nothing tells the factor of its latents: it is taken for ${USUAL_SCALE}, that of Stable ` +
        "Diffusion; scale_factor in a config.json beside it can tell another",
      ]
      : [],
  };
}

/** The family. */
export const ldmAutoencoder: Family<FamilyNetwork> = {
  name: "the autoencoders of CompVis/latent-diffusion",
  recognizes: (tensors) => placeOf(tensors) !== undefined,
  read,
};
