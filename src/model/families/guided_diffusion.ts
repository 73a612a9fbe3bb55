/**
 * The models of OpenAI's improved-diffusion and guided-diffusion: state dictionaries of `UNetModel`, of
 * `SuperResModel`, and of the classifier `EncoderUNetModel`. Their files do not tell how channels are
 * cut into heads, nor the noise; the flags of the scripts that made them do.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import {
  agree,
  countOf,
  type Family,
  type FamilyMember,
  sizeIn,
  type TensorMap,
} from "./family.ts";

const whole = z.int().min(1), heads = z.int().min(-1);
/** Numbers in a text, as flags have lists. */
const list = z.string().regex(/^$|^\d+(\.\d+)?(,\d+(\.\d+)?)*$/)
  .transform((text) => text ? text.split(",").map(Number) : []);

/** Flags of noise, and the defaults of the scripts. */
const noiseFlags = {
  image_size: whole.default(64),
  diffusion_steps: whole.default(1000),
  noise_schedule: z.enum(["linear", "cosine"]).default("linear"),
  predict_xstart: z.boolean().default(false),
  /** Of 1000 steps they change nothing. */
  rescale_timesteps: z.boolean().optional(),
  ...{ timestep_respacing: z.string().optional(), use_kl: z.boolean().optional() },
  ...{ rescale_learned_sigmas: z.boolean().optional(), sigma_small: z.boolean().default(false) },
  ...{ use_fp16: z.boolean().optional(), use_checkpoint: z.boolean().optional() },
};
/** What the original has fixed, or derives. */
const fixed = { norm_num_groups: whole.default(32), num_classes: whole.optional() };

const unetSchema = z.strictObject({
  ...{ ...noiseFlags, ...fixed },
  num_channels: whole.optional(),
  num_res_blocks: whole.optional(),
  channel_mult: list.optional(),
  num_heads: heads.default(4),
  num_heads_upsample: heads.default(-1),
  num_head_channels: heads.default(-1),
  attention_resolutions: list.optional(),
  dropout: z.number().default(0),
  class_cond: z.boolean().optional(),
  learn_sigma: z.boolean().optional(),
  use_scale_shift_norm: z.boolean().optional(),
  resblock_updown: z.boolean().optional(),
  use_new_attention_order: z.boolean().default(false),
  /** Of upsamplers. */
  ...{ large_size: whole.optional(), small_size: whole.optional() },
});

const classifierSchema = z.strictObject({
  ...{ ...noiseFlags, ...fixed },
  classifier_width: whole.optional(),
  classifier_depth: whole.default(2),
  classifier_attention_resolutions: list.optional(),
  classifier_use_scale_shift_norm: z.boolean().optional(),
  classifier_resblock_updown: z.boolean().default(true),
  classifier_pool: z.literal("attention").optional(),
  classifier_use_fp16: z.boolean().optional(),
  channel_mult: list.optional(),
  num_head_channels: whole.default(64),
});

/** Channels of colour pictures, noisy and enlarged ones. */
const UPSAMPLED = 6;

/** What no tensor tells, and what it would be wrong to guess. */
const needed = ["image_size", "num_head_channels", "use_new_attention_order", "noise_schedule"];

/** The flags that scripts take for granted, of those that matter and are not given. */
function defaults(given: object, flags: Readonly<Record<string, unknown>>, names: string[]) {
  const missing = names.filter((name) => !Object.hasOwn(given, name));
  if (!missing.length) return [];
  const list = missing.map((name) => `${name} ${flags[name]}`).join(", ");
  return [`its scripts' defaults are taken for granted: ${list}`];
}

/** The noise that flags describe. */
function scheduleOf(
  { diffusion_steps: steps, ...flags }:
    | z.infer<typeof unetSchema>
    | z.infer<typeof classifierSchema>,
  varianceType: string,
) {
  if (flags.rescale_timesteps && steps !== 1000) {
    throw new InputError(
      `rescale_timesteps is supported for 1000 diffusion_steps, not for ${steps}`,
    );
  }
  const scale = 1000 / steps;
  return {
    num_train_timesteps: steps,
    ...(flags.noise_schedule === "cosine"
      ? { beta_schedule: "squaredcos_cap_v2" }
      : { beta_schedule: "linear", beta_start: scale * 1e-4, beta_end: scale * 0.02 }),
    prediction_type: flags.predict_xstart ? "sample" : "epsilon",
    variance_type: varianceType,
  };
}

/** What tensors tell of the blocks on the way down, given how many residual blocks a level has. */
function describeEncoder(tensors: TensorMap, layers: number) {
  const blocks = countOf(tensors, "input_blocks.*."), levels = blocks / (layers + 1);
  if (!Number.isInteger(levels) || levels > 16) {
    throw new InputError(`${blocks} input_blocks are no levels of ${layers} residual blocks`);
  }
  const width = sizeIn(tensors, "time_embed.0.weight", 1);
  const first = Array.from(
    { length: levels },
    (_, level) => `input_blocks.${1 + level * (layers + 1)}`,
  );
  const widths = first.map((block) => sizeIn(tensors, `${block}.0.out_layers.0.weight`, 0));
  const size = sizeIn(tensors, "input_blocks.1.0.emb_layers.1.weight", 0);
  return {
    in_channels: sizeIn(tensors, "input_blocks.0.0.weight", 1),
    model_channels: width,
    num_res_blocks: layers,
    channel_mult: widths.map((n) => n / width),
    attention_resolutions: first.flatMap((block, level) =>
      tensors.has(`${block}.1.qkv.weight`) ? [2 ** level] : []
    ),
    use_scale_shift_norm: size === 2 * widths[0],
  };
}

type Encoder = ReturnType<typeof describeEncoder>;

/** The sides of what the levels with attention see. */
const attended = ({ attention_resolutions }: Encoder, side: number) =>
  attention_resolutions.map((factor) => side / factor);

const descending = (sides: readonly number[] | undefined) => sides?.toSorted((a, b) => b - a);

/** How much an upsampler enlarges, which is shown as many channels again; nothing of other networks. */
function upscalingOf(
  { large_size: large, small_size: small }: z.infer<typeof unetSchema>,
  channels: number,
): { readonly factor: number } | undefined {
  if (large === undefined && small === undefined && channels !== UPSAMPLED) return undefined;
  if (!large || !small || large % small || channels % 2) {
    throw new InputError(
      `an upsampler, of which ${channels} channels go in, needs both large_size and small_size, the ` +
        "former a multiple of the latter",
    );
  }
  return { factor: large / small };
}

/** What tensors tell of a `UNetModel`: its fields, but those of upsamplers and heads. */
export function describeUnet(tensors: TensorMap) {
  const outputs = countOf(tensors, "output_blocks.*.");
  const grows = (kind: string) =>
    Array.from({ length: outputs }, (_, i) => `output_blocks.${i}`)
      .filter((block) => [1, 2].some((place) => tensors.has(`${block}.${place}.${kind}.weight`)));
  const plain = grows("conv"), blocks = grows("in_layers.0");
  const levels = 1 + plain.length + blocks.length, layers = outputs / levels - 1;
  if (!Number.isInteger(layers) || layers < 1) {
    throw new InputError(`${outputs} output_blocks are not as many for each of ${levels} levels`);
  }
  return {
    ...describeEncoder(tensors, layers),
    out_channels: sizeIn(tensors, "out.2.weight", 0),
    num_classes: tensors.has("label_emb.weight") ? sizeIn(tensors, "label_emb.weight", 0) : null,
    resblock_updown: blocks.length > 0,
  };
}

function readUnet(tensors: TensorMap, config: object): FamilyMember {
  const flags = parseWith(unetSchema, config, "flags of a model of guided-diffusion");
  if (!Object.keys(config).length) {
    throw new InputError(`its tensors do not tell ${needed.join(", ")}, all flags of its scripts`);
  }
  const encoder = describeUnet(tensors), { out_channels: outChannels } = encoder;
  const upscaling = upscalingOf(flags, encoder.in_channels);
  const channels = encoder.in_channels / (upscaling ? 2 : 1);
  if (outChannels !== channels && outChannels !== 2 * channels) {
    throw new InputError(`${channels} channels go in and ${outChannels} come out`);
  }
  const { num_classes: classes, resblock_updown: isUpdown } = encoder;
  const learnsSigma = outChannels === 2 * channels, side = flags.large_size ?? flags.image_size;
  agree({
    ...flags,
    attention_resolutions: descending(flags.attention_resolutions) ?? attended(encoder, side),
    channel_mult: flags.channel_mult?.length ? flags.channel_mult : encoder.channel_mult,
    num_classes: flags.num_classes ?? classes,
  }, {
    ...{ num_channels: encoder.model_channels, num_res_blocks: encoder.num_res_blocks },
    class_cond: classes !== null,
    ...{ channel_mult: encoder.channel_mult, learn_sigma: learnsSigma, num_classes: classes },
    ...{ use_scale_shift_norm: encoder.use_scale_shift_norm, resblock_updown: isUpdown },
    attention_resolutions: attended(encoder, side),
  });
  const { num_heads_upsample: upsample, num_head_channels: each } = flags;
  return {
    network: {
      ...{
        _class_name: upscaling ? "GuidedDiffusionUpscaler" : "GuidedDiffusionUNet",
        ...upscaling,
      },
      ...{ ...encoder, in_channels: channels, sample_size: side },
      num_head_channels: each === -1 ? null : each,
      num_heads: flags.num_heads,
      num_heads_upsample: upsample === -1 ? null : upsample,
      use_new_attention_order: flags.use_new_attention_order,
      ...{ norm_num_groups: flags.norm_num_groups, dropout: flags.dropout },
    },
    schedule: scheduleOf(
      flags,
      learnsSigma ? "learned_range" : flags.sigma_small ? "fixed_small" : "fixed_large",
    ),
    scheduleSource: "the noise is that of its flags",
    guesses: defaults(config, flags, [
      ...[upscaling ? "large_size" : "image_size", each === -1 ? "num_heads" : "num_head_channels"],
      ...["use_new_attention_order", "noise_schedule", "diffusion_steps"],
    ]),
    tensors,
  };
}

function readClassifier(tensors: TensorMap, config: object): FamilyMember {
  const flags = parseWith(classifierSchema, config, "flags of a classifier of guided-diffusion");
  if (!Object.keys(config).length) {
    throw new InputError(
      "its tensors do not tell image_size and classifier_depth, flags of its scripts",
    );
  }
  const encoder = describeEncoder(tensors, flags.classifier_depth), side = flags.image_size;
  const classes = sizeIn(tensors, "out.2.c_proj.weight", 0);
  const isPlain = [...tensors.keys()].some((name) => name.endsWith(".op.weight"));
  agree({
    ...flags,
    classifier_attention_resolutions: descending(flags.classifier_attention_resolutions) ??
      attended(encoder, side),
    channel_mult: flags.channel_mult?.length ? flags.channel_mult : encoder.channel_mult,
  }, {
    ...{ classifier_width: encoder.model_channels, channel_mult: encoder.channel_mult },
    ...{ classifier_use_scale_shift_norm: encoder.use_scale_shift_norm, num_classes: classes },
    ...{ classifier_resblock_updown: !isPlain },
    classifier_attention_resolutions: attended(encoder, side),
  });
  return {
    network: {
      ...{ _class_name: "GuidedDiffusionClassifier", ...encoder, sample_size: side },
      ...{ num_classes: classes, resblock_updown: !isPlain },
      ...{
        num_head_channels: flags.num_head_channels,
        pool_head_channels: flags.num_head_channels,
      },
      // Its scripts cannot ask for the other one.
      ...{ use_new_attention_order: false, norm_num_groups: flags.norm_num_groups },
    },
    schedule: scheduleOf(flags, "fixed_large"),
    scheduleSource: "the noise is that of its flags",
    guesses: defaults(config, flags, ["image_size", "classifier_depth", "noise_schedule"]),
    tensors,
  };
}

const isClassifier = (tensors: TensorMap) => tensors.has("out.2.positional_embedding");

/** The family. */
export const guidedDiffusion: Family = {
  name: "openai/guided-diffusion and improved-diffusion",
  recognizes: (tensors) =>
    ["time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight"]
      .every((name) => tensors.has(name)) &&
    (isClassifier(tensors) || tensors.has("out.2.weight")),
  read(tensors, config) {
    const flags = parseWith(z.record(z.string(), z.unknown()), config, "config.json");
    return isClassifier(tensors) ? readClassifier(tensors, flags) : readUnet(tensors, flags);
  },
};
