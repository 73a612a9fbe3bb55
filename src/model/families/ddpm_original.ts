/**
 * The models of Ho et al. 2020 as pesser/pytorch_diffusion converted them from TensorFlow, and those of
 * Song et al. ("Denoising diffusion implicit models", 2021), whose code has the same names.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import {
  agree,
  countOf,
  type Family,
  type FamilyMember,
  levelsOf,
  type NameTable,
  rename,
  sizeIn,
  type TensorMap,
} from "./family.ts";

/** Names there and in diffusers, and in the autoencoders that have the same layers. */
const names: NameTable = [
  [/^temb\.dense\.0\./, "time_embedding.linear_1."],
  [/^temb\.dense\.1\./, "time_embedding.linear_2."],
  [/^norm_out\./, "conv_norm_out."],
  [/^mid\.block_1\./, "mid_block.resnets.0."],
  [/^mid\.attn_1\./, "mid_block.attentions.0."],
  [/^mid\.block_2\./, "mid_block.resnets.1."],
  [/^(down|up)\.(\d+)\.block\./, "$1_blocks.$2.resnets."],
  [/^(down|up)\.(\d+)\.attn\./, "$1_blocks.$2.attentions."],
  [/^(down|up)\.(\d+)\.(down|up)sample\./, "$1_blocks.$2.$3samplers.0."],
  [/(\.attentions\.\d+)\.norm\./, "$1.group_norm."],
  [/(\.attentions\.\d+)\.([qkv])\./, "$1.to_$2."],
  [/(\.attentions\.\d+)\.proj_out\./, "$1.to_out.0."],
  [/\.temb_proj\./, ".time_emb_proj."],
  [/\.nin_shortcut\./, ".conv_shortcut."],
];

/** The table of names for a network of so many levels; those of `up` count the other way there. */
export const originalNames = (levels: number): NameTable => [
  ...names,
  [/^up_blocks\.(\d+)/, (_, level) => `up_blocks.${levels - 1 - Number(level)}`],
];

/** Arguments of the original's `Model`, and the groups that it has fixed. */
const schema = z.strictObject({
  resolution: z.int().min(1),
  in_channels: z.int(),
  out_ch: z.int(),
  ch: z.int(),
  ch_mult: z.array(z.number()),
  num_res_blocks: z.int(),
  attn_resolutions: z.array(z.int()),
  dropout: z.number(),
  resamp_with_conv: z.literal(true),
  norm_num_groups: z.int().min(1),
}).partial();

/** The resolution at which the published models have attention. */
const ATTENDED = 16;

function read(tensors: TensorMap, config: unknown): FamilyMember {
  const given = parseWith(schema, config, "configuration of a model of pytorch_diffusion");
  const levels = levelsOf(tensors, "down.*.block.0.");
  const channels = Array.from(
    { length: levels },
    (_, i) => sizeIn(tensors, `down.${i}.block.0.conv1.weight`, 0),
  );
  const attends = channels.map((_, i) => tensors.has(`down.${i}.attn.0.q.weight`));
  const ch = sizeIn(tensors, "conv_in.weight", 0), layers = countOf(tensors, "down.0.block.*.");
  const inChannels = sizeIn(tensors, "conv_in.weight", 1);
  const outChannels = sizeIn(tensors, "conv_out.weight", 0), first = attends.indexOf(true);
  const usual = first < 0 ? null : ATTENDED * 2 ** first, resolution = given.resolution ?? usual;
  agree(given, {
    ...{ in_channels: inChannels, out_ch: outChannels, ch, num_res_blocks: layers },
    ch_mult: channels.map((n) => n / ch),
    ...(given.resolution
      ? { attn_resolutions: attends.flatMap((has, i) => has ? [given.resolution! / 2 ** i] : []) }
      : {}),
  });
  const types = attends.map((has) => has ? "AttnDownBlock2D" : "DownBlock2D");
  return {
    network: {
      ...{ _class_name: "UNet2DModel", sample_size: resolution },
      ...{ in_channels: inChannels, out_channels: outChannels, block_out_channels: channels },
      down_block_types: types,
      up_block_types: types.toReversed().map((type) => type.replace("Down", "Up")),
      ...{ layers_per_block: layers, freq_shift: 1, flip_sin_to_cos: false },
      ...{ downsample_padding: 0, norm_eps: 1e-6, attention_head_dim: null },
      add_attention: tensors.has("mid.attn_1.q.weight"),
      ...{ norm_num_groups: given.norm_num_groups ?? 32, dropout: given.dropout ?? 0 },
    },
    schedule: {
      ...{ num_train_timesteps: 1000, beta_schedule: "linear", beta_start: 1e-4, beta_end: 0.02 },
      ...{ prediction_type: "epsilon", variance_type: "fixed_large" },
    },
    guesses: given.resolution || !usual ? [] : [
      `its pictures are ${usual}x${usual}, so that it attends at ${ATTENDED}x${ATTENDED} as all that ` +
      "are published; a config.json beside it can tell another resolution",
    ],
    scheduleSource: "the noise is that of Ho et al. 2020, as of all its models",
    tensors: rename(tensors, originalNames(levels)),
  };
}

/** The family. */
export const ddpmOriginal: Family = {
  name: "pesser/pytorch_diffusion and ermongroup/ddim",
  recognizes: (tensors) =>
    tensors.has("temb.dense.0.weight") && tensors.has("down.0.block.0.conv1.weight"),
  read,
};
