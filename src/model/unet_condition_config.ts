/**
 * The configuration of a UNet that is told what to paint: the fields of diffusers'
 * `UNet2DConditionModel`. What may differ from level to level is a list here, the full resolution
 * first.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import type { Fields } from "./network.ts";
import type { UNetConfig } from "./unet_config.ts";

/** Blocks on the way down. */
export type ConditionDownBlockType = "DownBlock2D" | "CrossAttnDownBlock2D";
/** Blocks on the way up. */
export type ConditionUpBlockType = "UpBlock2D" | "CrossAttnUpBlock2D";

type SharedField =
  | ("sampleSize" | "inChannels" | "outChannels" | "centerInputSample" | "flipSinToCos")
  | ("freqShift" | "blockOutChannels" | "downsamplePadding" | "midBlockScaleFactor" | "dropout")
  | ("normNumGroups" | "normEps" | "resnetTimeScaleShift" | "numClassEmbeds");

/** The architecture of a UNet that is told what to paint. Defaults are those of diffusers. */
export interface UNetConditionConfig extends Pick<UNetConfig, SharedField> {
  /** From the full resolution down; every block but the last halves it. */
  readonly downBlockTypes: readonly ConditionDownBlockType[];
  /** The middle block; `null` for none. @default {"UNetMidBlock2DCrossAttn"} */
  readonly midBlockType: "UNetMidBlock2DCrossAttn" | null;
  /** From the lowest resolution up. */
  readonly upBlockTypes: readonly ConditionUpBlockType[];
  /** Of each level, whether the first attention of its transformers sees the text too. */
  readonly onlyCrossAttention: readonly boolean[];
  /** Residual blocks of each down block; up blocks have one more. @default {2} */
  readonly layersPerBlock: readonly number[];
  /** Activation of residual blocks. @default {"silu"} */
  readonly actFn: "silu" | "swish";
  /** Numbers that a token of the text has. @default {1280} */
  readonly crossAttentionDim: number;
  /** Transformer layers of each level, one behind the other. @default {1} */
  readonly transformerLayersPerBlock: readonly number[];
  /** Heads of attention of each level, which diffusers calls `attention_head_dim`. @default {8} */
  readonly numAttentionHeads: readonly number[];
  /** Whether transformers begin and end with dense layers, not convolutions. @default {false} */
  readonly useLinearProjection: boolean;
  /** Whether attention is computed in 32-bit floats, as it always is here. @default {false} */
  readonly upcastAttention: boolean;
  /** How labels become vectors: `null` by a table, if there are classes. @default {null} */
  readonly classEmbedType: "timestep" | "identity" | "projection" | "simple_projection" | null;
  /** Numbers that a label has which is projected. @default {null} */
  readonly projectionClassEmbeddingsInputDim: number | null;
  /** How timesteps become vectors. @default {"positional"} */
  readonly timeEmbeddingType: "positional";
  /** Pixels of the first convolution. @default {3} */
  readonly convInKernel: 1 | 3;
  /** Pixels of the last convolution. @default {3} */
  readonly convOutKernel: 1 | 3;
  /** Tokens of a text; no field of diffusers, which leaves it to the text encoder. @default {77} */
  readonly encoderSequenceLength: number;
}

const count = z.int().positive(), channels = count.max(65536), layers = count.max(100);
const each = <T extends z.ZodType>(type: T) => z.union([type, z.array(type).min(1)]);
const kernel = z.union([z.literal(1), z.literal(3)]);

/** Of the fields as they are in files. */
export const unetConditionSchema = z.strictObject({
  sample_size: z.union([count, z.tuple([count, count])]).nullable().default(null),
  in_channels: channels.default(4),
  out_channels: channels.default(4),
  center_input_sample: z.boolean().default(false),
  flip_sin_to_cos: z.boolean().default(true),
  freq_shift: z.number().default(0),
  down_block_types: z.array(z.enum(["DownBlock2D", "CrossAttnDownBlock2D"])).min(1).default([
    ...["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"] as const,
    "DownBlock2D",
  ]),
  mid_block_type: z.enum(["UNetMidBlock2DCrossAttn"]).nullable().default("UNetMidBlock2DCrossAttn"),
  up_block_types: z.array(z.enum(["UpBlock2D", "CrossAttnUpBlock2D"])).min(1).default([
    "UpBlock2D",
    ...["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"] as const,
  ]),
  only_cross_attention: each(z.boolean()).default(false),
  block_out_channels: z.array(channels).min(1).default([320, 640, 1280, 1280]),
  layers_per_block: each(layers).default(2),
  downsample_padding: z.int().min(0).max(1).default(1),
  mid_block_scale_factor: z.number().positive().default(1),
  dropout: z.number().min(0).lt(1).default(0),
  act_fn: z.enum(["silu", "swish"]).default("silu"),
  norm_num_groups: count.default(32),
  norm_eps: z.number().positive().default(1e-5),
  cross_attention_dim: each(channels).default(1280),
  transformer_layers_per_block: each(layers).default(1),
  attention_head_dim: each(count).default(8),
  num_attention_heads: each(count).optional(),
  use_linear_projection: z.boolean().default(false),
  upcast_attention: z.boolean().default(false),
  class_embed_type: z.enum(["timestep", "identity", "projection", "simple_projection"]).nullable()
    .default(null),
  num_class_embeds: count.nullable().default(null),
  resnet_time_scale_shift: z.enum(["default", "scale_shift"]).default("default"),
  conv_in_kernel: kernel.default(3),
  conv_out_kernel: kernel.default(3),
  projection_class_embeddings_input_dim: channels.nullable().default(null),
  encoder_sequence_length: count.max(65536).default(77),
});

/** Fields of diffusers that are supported at one value only; `null` is none. */
const fixedFields: Readonly<Record<string, (config: UNetConditionConfig) => unknown>> = {
  ...{ dual_cross_attention: () => false, encoder_hid_dim: () => null },
  ...{ encoder_hid_dim_type: () => null, addition_embed_type: () => null },
  ...{ resnet_skip_time_act: () => false, resnet_out_scale_factor: () => 1 },
  ...{ time_embedding_type: () => "positional", time_embedding_act_fn: () => null },
  time_embedding_dim: ({ blockOutChannels }) => 4 * blockOutChannels[0],
  ...{ timestep_post_act: () => null, time_cond_proj_dim: () => null },
  ...{ attention_type: () => "default", class_embeddings_concat: () => false },
  ...{ cross_attention_norm: () => null, reverse_transformer_layers_per_block: () => null },
};

/** Fields that say nothing about a network of these blocks, or about any. */
const unusedFields = [
  ...["mid_block_only_cross_attention", "addition_time_embed_dim", "addition_embed_type_num_heads"],
  ...["decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup"],
  ...["inv_gamma", "power"],
];

/** Fields for which null is a value: no middle block. For `norm_num_groups`, it is none here. */
const nullable = ["mid_block_type", "norm_num_groups"];

const WHAT = "configuration of a UNet2DConditionModel";
const bad = (why: string) => new InputError(`Bad ${WHAT}: ${why}`);

/**
 * Reads a configuration as any version of diffusers writes it.
 *
 * @throws {InputError} If a field is unknown, out of range or not supported, or contradicts another.
 */
export function parseUNetConditionConfig(all: Fields): UNetConditionConfig {
  const given = givenFields(all);
  for (const key of nullable) if (all[key] === null) given[key] = null;
  const known = Object.entries(given).filter(([key]) =>
    !Object.hasOwn(fixedFields, key) && !unusedFields.includes(key)
  );
  const fields = parseWith(unetConditionSchema, Object.fromEntries(known), WHAT),
    { length: levels } = fields
      .block_out_channels;
  /** Of every level. */
  const spread = <T>(name: string, value: T | readonly T[]): readonly T[] => {
    const list = Array.isArray(value) ? value as T[] : new Array<T>(levels).fill(value as T);
    if (list.length === levels) return list;
    throw bad(`${levels} block_out_channels need as many ${name}, not ${list.length}`);
  };
  const text = spread("cross_attention_dim", fields.cross_attention_dim);
  if (text.some((size) => size !== text[0])) {
    throw bad(`cross_attention_dim ${JSON.stringify(text)} differs from level to level`);
  }
  const size = fields.sample_size;
  const config: UNetConditionConfig = {
    sampleSize: typeof size === "number" ? [size, size] : size,
    ...{ inChannels: fields.in_channels, outChannels: fields.out_channels },
    ...{ centerInputSample: fields.center_input_sample, flipSinToCos: fields.flip_sin_to_cos },
    ...{ freqShift: fields.freq_shift, midBlockType: fields.mid_block_type },
    downBlockTypes: spread("down_block_types", fields.down_block_types),
    upBlockTypes: spread("up_block_types", fields.up_block_types),
    onlyCrossAttention: spread("only_cross_attention", fields.only_cross_attention),
    blockOutChannels: fields.block_out_channels,
    layersPerBlock: spread("layers_per_block", fields.layers_per_block),
    downsamplePadding: fields.downsample_padding,
    midBlockScaleFactor: fields.mid_block_scale_factor,
    ...{ dropout: fields.dropout, actFn: fields.act_fn, normNumGroups: fields.norm_num_groups },
    ...{ normEps: fields.norm_eps, crossAttentionDim: text[0] },
    transformerLayersPerBlock: spread(
      "transformer_layers_per_block",
      fields.transformer_layers_per_block,
    ),
    numAttentionHeads: spread(
      "attention_head_dim",
      fields.num_attention_heads ?? fields.attention_head_dim,
    ),
    ...{ useLinearProjection: fields.use_linear_projection },
    ...{ upcastAttention: fields.upcast_attention, classEmbedType: fields.class_embed_type },
    ...{ numClassEmbeds: fields.num_class_embeds, timeEmbeddingType: "positional" },
    resnetTimeScaleShift: fields.resnet_time_scale_shift,
    ...{ convInKernel: fields.conv_in_kernel, convOutKernel: fields.conv_out_kernel },
    projectionClassEmbeddingsInputDim: fields.projection_class_embeddings_input_dim,
    encoderSequenceLength: fields.encoder_sequence_length,
  };
  for (const [key, right] of Object.entries(fixedFields)) {
    if (!(key in given) || given[key] === right(config)) continue;
    throw bad(
      `${key} ${JSON.stringify(given[key])} is not supported: here it can only be ` +
        JSON.stringify(right(config)),
    );
  }
  checkConsistent(config);
  return config;
}

function checkConsistent(config: UNetConditionConfig): void {
  const { blockOutChannels: widths, normNumGroups, numAttentionHeads, freqShift } = config;
  const last = widths.length - 1;
  widths.forEach((width, i) => {
    if (width % normNumGroups) {
      throw bad(
        `${width} of block_out_channels is no multiple of norm_num_groups, ${normNumGroups}`,
      );
    }
    const attends = config.downBlockTypes[i] === "CrossAttnDownBlock2D" ||
      config.upBlockTypes[last - i] === "CrossAttnUpBlock2D" ||
      i === last && config.midBlockType !== null;
    if (attends && width % numAttentionHeads[i]) {
      throw bad(
        `${width} of block_out_channels is no multiple of attention_head_dim, ` +
          `${numAttentionHeads[i]}, which is the number of heads`,
      );
    }
  });
  if (Math.floor(widths[0] / 2) === freqShift) {
    throw bad(`freq_shift ${freqShift} leaves no frequencies for timesteps`);
  }
  const isProjected = config.classEmbedType?.endsWith("projection") ?? false;
  if (isProjected && config.projectionClassEmbeddingsInputDim === null) {
    throw bad(
      `class_embed_type ${config.classEmbedType} needs projection_class_embeddings_input_dim`,
    );
  }
}

/** The configuration as diffusers reads it. */
export function formatUNetConditionConfig(config: UNetConditionConfig): Fields {
  /** One value, where it is that of all levels. */
  const merged = <T>(list: readonly T[]) => list.every((x) => x === list[0]) ? list[0] : list;
  const { sampleSize: size, encoderSequenceLength: tokens } = config;
  return {
    sample_size: size && merged(size),
    ...{ in_channels: config.inChannels, out_channels: config.outChannels },
    ...{ center_input_sample: config.centerInputSample, flip_sin_to_cos: config.flipSinToCos },
    ...{ freq_shift: config.freqShift, down_block_types: config.downBlockTypes },
    ...{ mid_block_type: config.midBlockType, up_block_types: config.upBlockTypes },
    only_cross_attention: merged(config.onlyCrossAttention),
    block_out_channels: config.blockOutChannels,
    layers_per_block: merged(config.layersPerBlock),
    downsample_padding: config.downsamplePadding,
    mid_block_scale_factor: config.midBlockScaleFactor,
    ...{ act_fn: config.actFn, norm_num_groups: config.normNumGroups, norm_eps: config.normEps },
    cross_attention_dim: config.crossAttentionDim,
    transformer_layers_per_block: merged(config.transformerLayersPerBlock),
    attention_head_dim: merged(config.numAttentionHeads),
    use_linear_projection: config.useLinearProjection,
    ...{ upcast_attention: config.upcastAttention, class_embed_type: config.classEmbedType },
    num_class_embeds: config.numClassEmbeds,
    resnet_time_scale_shift: config.resnetTimeScaleShift,
    ...{ conv_in_kernel: config.convInKernel, conv_out_kernel: config.convOutKernel },
    projection_class_embeddings_input_dim: config.projectionClassEmbeddingsInputDim,
    // Newer than most readers, and unknown to all others.
    ...(config.dropout ? { dropout: config.dropout } : {}),
    ...(tokens === 77 ? {} : { encoder_sequence_length: tokens }),
  };
}
