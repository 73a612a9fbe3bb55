/**
 * Whole models of latent diffusion that read no texts, in one file, as CompVis's `ldm` saves them: the
 * `UNetModel` of guided-diffusion, the autoencoder whose latents it denoises, and tables of the noise.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import type { Fields } from "../network.ts";
import { agree, type Family, type FamilyMember, type TensorMap } from "./family.ts";
import { describeUnet } from "./guided_diffusion.ts";
import { ldmAutoencoder } from "./ldm_autoencoder.ts";
import { findLdmUnet, ldmSchedule } from "./ldm_unet.ts";
import {
  isUnconditional,
  parseKnown,
  PLAIN_ATTENTION,
  readAutoencoder,
  readNoise,
  tensorsOf,
} from "./stable_diffusion.ts";

/** The noise, the channels of a head and the side of pictures of the models of faces and bedrooms. */
const schedule: Fields = { ...ldmSchedule, beta_start: 0.0015, beta_end: 0.0195 };
const USUAL_HEAD = 32, USUAL_SIDE = 256;
const WHOSE = "the models of faces that were published";
const USUAL_GROUPS = 32, USUAL_SCALE = 1;

const whole = z.int().min(1), heads = z.int().min(-1);
/** Arguments of the original's `UNetModel`, and the groups that it has fixed. */
const schema = z.strictObject({
  ...{ image_size: whole, in_channels: whole, out_channels: whole, model_channels: whole },
  ...{ num_res_blocks: whole, channel_mult: z.array(z.number()), num_classes: whole },
  /** Factors by which levels are smaller than latents. */
  attention_resolutions: z.array(whole),
  ...{ num_heads: heads, num_head_channels: heads, num_heads_upsample: heads },
  ...{ use_new_attention_order: z.boolean(), use_scale_shift_norm: z.boolean() },
  ...{ resblock_updown: z.boolean(), dropout: z.number(), norm_num_groups: whole },
  ...{ use_checkpoint: z.boolean(), use_fp16: z.boolean(), legacy: z.boolean() },
  ...{ conv_resample: z.literal(true), dims: z.literal(2) },
  use_spatial_transformer: z.literal(false),
}).partial();

/** A number of heads or of their channels; -1 stands for none. */
const given = (count: number | undefined) => count === undefined || count < 1 ? undefined : count;

/** The network without its size, and what was taken for granted. */
function readUnet(tensors: TensorMap, known: Fields) {
  const what = "arguments of the UNet of a model of latent diffusion";
  const flags = parseWith(schema, known, what), told = describeUnet(tensors);
  const { attention_resolutions: attended, ...rest } = flags;
  // Factors that no level has change nothing.
  const factors = attended?.filter((factor) => factor < 2 ** told.channel_mult.length)
    .sort((a, b) => a - b);
  agree(factors ? { ...rest, attention_resolutions: factors } : rest, told);
  const { in_channels: channels, out_channels: outChannels } = told;
  if (channels !== outChannels) {
    throw new InputError(
      `${channels} channels go into its UNet and ${outChannels} come out: it is shown more than ` +
        "latents, which is not supported",
    );
  }
  const count = given(flags.num_heads), size = given(flags.num_head_channels);
  const each = size ?? (count ? null : USUAL_HEAD),
    tells = "unet in a config.json beside it can tell";
  const { norm_num_groups: groups, dropout = 0 } = flags;
  return {
    network: {
      ...{ _class_name: "GuidedDiffusionUNet", ...told, dropout },
      ...{ num_head_channels: each, num_heads: count ?? 1 },
      num_heads_upsample: given(flags.num_heads_upsample) ?? null,
      use_new_attention_order: flags.use_new_attention_order ?? false,
      norm_num_groups: groups ?? USUAL_GROUPS,
    },
    side: flags.image_size,
    guesses: [
      ...(size ?? count ? [] : [
        `its attention has heads of ${USUAL_HEAD} channels, as in ${WHOSE}; ${tells} ` +
        "num_head_channels or num_heads",
      ]),
      ...(groups ? [] : [
        `its normalisations have ${USUAL_GROUPS} groups; ${tells} norm_num_groups`,
      ]),
    ],
  };
}

function read(tensors: TensorMap, config: unknown): FamilyMember {
  const all = tensorsOf(tensors), known = parseKnown(config, schedule);
  const { tensors: own, weightSource } = findLdmUnet(tensors, PLAIN_ATTENTION)!;
  if (!ldmAutoencoder.recognizes(tensors)) {
    throw new InputError(
      "it lacks first_stage_model, the autoencoder that makes pictures of its latents",
    );
  }
  const { network, side, guesses } = readUnet(own, known.unetArguments);
  // What the original does where its settings say nothing.
  const { scale_factor: scale } = known.autoencoder, isScaled = all.has("scale_factor");
  const autoencoder = readAutoencoder(tensors, {
    ...known,
    autoencoder: { ...known.autoencoder, scale_factor: scale ?? USUAL_SCALE },
  });
  const told = autoencoder.network, codes = told.vq_embed_dim ?? told.latent_channels;
  if (codes !== network.in_channels) {
    throw new InputError(
      `its UNet denoises ${network.in_channels} channels, but its first_stage_model makes latents ` +
        `of ${codes}`,
    );
  }
  const levels = (told.block_out_channels as number[]).length;
  const size = side ?? USUAL_SIDE / 2 ** (levels - 1);
  return {
    network: { ...network, sample_size: size },
    tensors: own,
    guesses: [
      ...guesses,
      ...(side === undefined ? [`its latents are ${size}x${size}, of ${USUAL_SIDE} pixels`] : []),
    ],
    weightSource,
    autoencoder: {
      ...autoencoder,
      guesses: isScaled || scale !== undefined
        ? autoencoder.guesses
        : [`nothing tells the factor of its latents: it is taken for ${USUAL_SCALE}`],
    },
    ...readNoise(all, known.schedule, schedule, WHOSE),
  };
}

/** The family. */
export const ldmUnconditional: Family = {
  name: "CompVis/latent-diffusion without texts",
  recognizes: isUnconditional,
  read,
};
