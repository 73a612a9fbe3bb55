/**
 * The configuration of a UNet: the fields of diffusers' `UNet2DModel`, with its names in files
 * (`block_out_channels`) and camel case in TypeScript (`blockOutChannels`).
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith, toCamelCase, toSnakeCase } from "../config.ts";
import { InputError } from "../errors.ts";

/** Blocks on the way down. */
export type DownBlockType = "DownBlock2D" | "AttnDownBlock2D";
/** Blocks on the way up. */
export type UpBlockType = "UpBlock2D" | "AttnUpBlock2D";
/** Activation functions of residual blocks. */
export type ActivationName = "silu" | "swish" | "mish" | "gelu" | "relu";

/** The architecture of a UNet. Defaults are those of diffusers, not those of the DDPM paper. */
export interface UNetConfig {
  /** Height and width of the images it was made for; `null` if any. @default {null} */
  readonly sampleSize: readonly [height: number, width: number] | null;
  /** Channels of the images. @default {3} */
  readonly inChannels: number;
  /** Channels of the prediction. @default {3} */
  readonly outChannels: number;
  /** Whether inputs in [0, 1] are mapped to [-1, 1] first. @default {false} */
  readonly centerInputSample: boolean;
  /** How timesteps become vectors. @default {"positional"} */
  readonly timeEmbeddingType: "positional" | "fourier";
  /** Subtracted from the number of frequencies; 1 in the DDPM paper. @default {0} */
  readonly freqShift: number;
  /** Whether cosines come before sines; false in the DDPM paper. @default {true} */
  readonly flipSinToCos: boolean;
  /** From the full resolution down; every block but the last halves it. */
  readonly downBlockTypes: readonly DownBlockType[];
  /** From the lowest resolution up. */
  readonly upBlockTypes: readonly UpBlockType[];
  /** Channels of each resolution, the full one first. @default {[224, 448, 672, 896]} */
  readonly blockOutChannels: readonly number[];
  /** Residual blocks of a down block, at most 100; up blocks have one more. @default {2} */
  readonly layersPerBlock: number;
  /** Divides the sums of the middle block. @default {1} */
  readonly midBlockScaleFactor: number;
  /** Zeros around a downsampling convolution; 0 pads right and bottom only. @default {1} */
  readonly downsamplePadding: number;
  /** How blocks with attention go down. @default {"conv"} */
  readonly downsampleType: "conv" | "resnet";
  /** How blocks with attention go up. @default {"conv"} */
  readonly upsampleType: "conv" | "resnet";
  /** Activation of residual blocks. @default {"silu"} */
  readonly actFn: ActivationName;
  /** Channels of an attention head; `null` for a single head. @default {8} */
  readonly attentionHeadDim: number | null;
  /** Groups of all normalisations. @default {32} */
  readonly normNumGroups: number;
  /** Added to variances. @default {1e-5} */
  readonly normEps: number;
  /** Whether the timestep is added, or scales and shifts. @default {"default"} */
  readonly resnetTimeScaleShift: "default" | "scale_shift";
  /** Whether the middle block has attention. @default {true} */
  readonly addAttention: boolean;
  /** How labels become vectors: `null` by a table, if there are classes. @default {null} */
  readonly classEmbedType: "timestep" | "identity" | null;
  /** Number of classes. @default {null} */
  readonly numClassEmbeds: number | null;
  /** Probability that training drops a value within a residual block. @default {0} */
  readonly dropout: number;
}

const anyFields = z.record(z.string(), z.unknown());
const count = z.int().positive();
// More channels, layers and levels than anybody has mean a damaged file, which must not eat all memory.
const channels = count.max(65536), layers = count.max(100);
const perLevel = <T extends z.ZodType>(of: T) => z.array(of).min(1).max(16);

/** Of the fields as they are in files. */
export const unetSchema = z.strictObject({
  sample_size: z.union([count, z.tuple([count, count]), z.null()]).default(null),
  in_channels: channels.default(3),
  out_channels: channels.default(3),
  center_input_sample: z.boolean().default(false),
  time_embedding_type: z.enum(["positional", "fourier"]).default("positional"),
  freq_shift: z.number().default(0),
  flip_sin_to_cos: z.boolean().default(true),
  down_block_types: perLevel(z.enum(["DownBlock2D", "AttnDownBlock2D"])).default([
    "DownBlock2D",
    "AttnDownBlock2D",
    "AttnDownBlock2D",
    "AttnDownBlock2D",
  ]),
  up_block_types: perLevel(z.enum(["UpBlock2D", "AttnUpBlock2D"])).default([
    "AttnUpBlock2D",
    "AttnUpBlock2D",
    "AttnUpBlock2D",
    "UpBlock2D",
  ]),
  block_out_channels: perLevel(channels).default([224, 448, 672, 896]),
  layers_per_block: layers.default(2),
  mid_block_scale_factor: z.number().positive().default(1),
  downsample_padding: z.int().min(0).max(1).default(1),
  downsample_type: z.enum(["conv", "resnet"]).default("conv"),
  upsample_type: z.enum(["conv", "resnet"]).default("conv"),
  act_fn: z.enum(["silu", "swish", "mish", "gelu", "relu"]).default("silu"),
  attention_head_dim: count.nullable().default(8),
  norm_num_groups: count.default(32),
  norm_eps: z.number().positive().default(1e-5),
  resnet_time_scale_shift: z.enum(["default", "scale_shift"]).default("default"),
  add_attention: z.boolean().default(true),
  class_embed_type: z.enum(["timestep", "identity"]).nullable().default(null),
  num_class_embeds: count.nullable().default(null),
  dropout: z.number().min(0).lt(1).default(0),
});

/** Fields of diffusers that are supported at one value only, which the others decide. */
const fixedFields: Readonly<Record<string, (config: UNetConfig) => unknown>> = {
  mid_block_type: () => "UNetMidBlock2D",
  time_embedding_dim: ({ blockOutChannels }) => 4 * blockOutChannels[0],
  // With scale_shift there is no normalisation where it would say how.
  attn_norm_num_groups: (c) => c.resnetTimeScaleShift === "default" ? c.normNumGroups : null,
};

/** Fields that say nothing about the network. */
const unusedFields = [
  // It is for what `time_embedding_type` says in diffusers and is not supported here.
  "num_train_timesteps",
  // How weights were averaged, as EMAModel of diffusers adds it.
  ...["decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup"],
  ...["inv_gamma", "power"],
];

/** Fields that are read beside those of {@linkcode unetSchema}. */
export const foreignUNetFields: readonly string[] = [...Object.keys(fixedFields), ...unusedFields];

/** Fields for which null is a value: no middle block, and one head of attention. */
const nullable = ["mid_block_type", "attention_head_dim"];

/** Types of blocks without the prefix that they have in the oldest files of diffusers. */
const withoutPrefix = (types: unknown): unknown =>
  Array.isArray(types)
    ? types.map((type) => typeof type === "string" ? type.replace(/^UNetRes/, "") : type)
    : types;

/**
 * Reads a configuration as any version of diffusers writes it.
 *
 * @param json The parsed `config.json`. Fields that start with an underscore are ignored, and what is
 * null is not given.
 * @throws {InputError} If a field is unknown, out of range or not supported, or contradicts another
 * one, or if the configuration is of another class than `UNet2DModel`.
 */
export function parseUNetConfig(json: unknown): UNetConfig {
  const what = "UNet configuration", all = parseWith(anyFields, json, what);
  const name = all._class_name ?? "UNet2DModel";
  if (name !== "UNet2DModel") {
    throw new InputError(
      `Bad ${what}: the network is a ${JSON.stringify(name)}, but what can be read is UNet2DModel`,
    );
  }
  const given = givenFields(all);
  for (const key of nullable) if (all[key] === null) given[key] = null;
  const entries = Object.entries(given)
    .filter(([key]) => !Object.hasOwn(fixedFields, key) && !unusedFields.includes(key))
    .map((
      [key, value],
    ) => [key, /^(down|up)_block_types$/.test(key) ? withoutPrefix(value) : value]);
  const fields = parseWith(unetSchema, Object.fromEntries(entries), what);
  const { sample_size: size, ...rest } = fields;
  const sampleSize = typeof size === "number" ? [size, size] as const : size;
  const config: UNetConfig = { ...toCamelCase(rest), sampleSize };
  for (const [key, right] of Object.entries(fixedFields)) {
    if (!(key in given) || given[key] === right(config)) continue;
    throw new InputError(
      `Bad ${what}: ${key} ${JSON.stringify(given[key])} is not supported: here it can only be ` +
        JSON.stringify(right(config)),
    );
  }
  checkConsistent(config);
  return config;
}

/**
 * The configuration as diffusers reads it.
 */
export function formatUNetConfig(config: UNetConfig): Record<string, unknown> {
  const { dropout, ...rest } = config;
  return {
    _class_name: "UNet2DModel",
    ...toSnakeCase(rest),
    // A square size is one number, as everybody writes it; dropout is newer than most readers.
    ...(config.sampleSize?.[0] === config.sampleSize?.[1] && config.sampleSize
      ? { sample_size: config.sampleSize[0] }
      : {}),
    ...(dropout ? { dropout } : {}),
  };
}

function checkConsistent(config: UNetConfig): void {
  const { blockOutChannels, downBlockTypes, upBlockTypes, normNumGroups, freqShift } = config;
  const levels = blockOutChannels.length;
  if (downBlockTypes.length !== levels || upBlockTypes.length !== levels) {
    throw new InputError(
      `Bad UNet configuration: ${levels} block_out_channels need as many down_block_types and ` +
        `up_block_types, not ${downBlockTypes.length} and ${upBlockTypes.length}`,
    );
  }
  const headDim = config.attentionHeadDim ?? 1;
  blockOutChannels.forEach((channels, i) => {
    if (channels % normNumGroups) {
      throw new InputError(
        `Bad UNet configuration: ${channels} of block_out_channels is no multiple of ` +
          `norm_num_groups, ${normNumGroups}`,
      );
    }
    const hasAttention = downBlockTypes[i] === "AttnDownBlock2D" ||
      upBlockTypes[levels - 1 - i] === "AttnUpBlock2D" ||
      (config.addAttention && i === levels - 1);
    if (hasAttention && channels < headDim) {
      throw new InputError(
        `Bad UNet configuration: ${channels} of block_out_channels make no attention head of ` +
          `attention_head_dim, ${headDim}`,
      );
    }
  });
  if (Math.floor(blockOutChannels[0] / 2) === freqShift) {
    throw new InputError(
      `Bad UNet configuration: freq_shift ${freqShift} leaves no frequencies for timesteps`,
    );
  }
}
