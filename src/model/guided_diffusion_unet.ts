/**
 * The networks of OpenAI's improved- and guided-diffusion (Nichol and Dhariwal 2021; Dhariwal and Nichol
 * 2021): `UNetModel`, with what it can be told of classes; `SuperResModel`, the same beside a picture that
 * it enlarges; and `EncoderUNetModel`, the classifier with attention pooling. Parameters have the names
 * of the original, and fields those of its arguments.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import type { Conditions } from "../diffusion/denoiser.ts";
import { attention } from "../gpu/ops/attention.ts";
import { concat } from "../gpu/ops/concat.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, map, silu } from "../gpu/ops/map.ts";
import { averagePool, resizeBilinear, upsampleNearest } from "../gpu/ops/resample.ts";
import { mean } from "../gpu/ops/sum.ts";
import { permute, reshape, slice, transpose } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Shape } from "../shape.ts";
import { checkSize } from "./image_size.ts";
import { NamedLayers } from "./named_layers.ts";
import {
  defineNetwork,
  type Fields,
  type Forward,
  type ItemShape,
  type NetworkInputs,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { sinusoidalEmbedding } from "./time_embedding.ts";

const count = z.int().min(1).max(65536);
const size = z.union([count, z.tuple([count, count]), z.null()]).default(null);

/** What both networks are described by. */
const encoderSchema = z.strictObject({
  sample_size: size,
  in_channels: count.default(3),
  model_channels: count,
  num_res_blocks: z.int().min(1).max(100),
  channel_mult: z.array(z.number().positive().max(1024)).min(1).max(16),
  /** Factors by which the levels with attention are smaller than pictures. */
  attention_resolutions: z.array(count),
  /** Channels of a head, or null where `num_heads` counts. */
  num_head_channels: count.nullable().default(null),
  num_heads: count.default(1),
  use_new_attention_order: z.boolean(),
  use_scale_shift_norm: z.boolean().default(false),
  resblock_updown: z.boolean().default(false),
  dropout: z.number().min(0).lt(1).default(0),
  norm_num_groups: count.default(32),
});
const unetSchema = encoderSchema.extend({
  out_channels: count.default(3),
  /** Heads of the levels on the way up, where `num_heads` counts; null for as many. */
  num_heads_upsample: count.nullable().default(null),
  num_classes: count.nullable().default(null),
});
const upscalerSchema = unetSchema.extend({ factor: z.int().min(2).max(64) });
const classifierSchema = encoderSchema.extend({
  sample_size: z.union([count, z.tuple([count, count])]),
  num_classes: count,
  /** Channels of a head of the attention that pools. */
  pool_head_channels: count,
});

/** The architecture of an encoder. */
type Encoder = z.infer<typeof encoderSchema>;
/** The architecture of a denoiser. */
export type GuidedDiffusionConfig = z.infer<typeof unetSchema>;
/** The architecture of a network that enlarges pictures; its channels are those of pictures. */
export type GuidedUpscalerConfig = z.infer<typeof upscalerSchema>;
/** The architecture of a classifier. */
export type GuidedClassifierConfig = z.infer<typeof classifierSchema>;

/** Channels of each level. */
const widthsOf = ({ model_channels, channel_mult }: Encoder): number[] =>
  channel_mult.map((factor) => Math.floor(factor * model_channels));

const hasAttention = ({ attention_resolutions }: Encoder, level: number): boolean =>
  attention_resolutions.includes(2 ** level);

/** Reads the fields of a class, and checks what is between them. */
function parse<C extends Encoder>(schema: z.ZodType<C>, json: Fields, what: string): C {
  const config = parseWith(schema, givenFields(json), `configuration of a ${what}`);
  const widths = widthsOf(config), last = widths.length - 1;
  const bad = (why: string) => new InputError(`Bad configuration of a ${what}: ${why}`);
  widths.forEach((width, level) => {
    if (width % config.norm_num_groups) {
      throw bad(
        `${width} channels of a level are no multiple of norm_num_groups, ${config.norm_num_groups}`,
      );
    }
    if (level !== last && !hasAttention(config, level)) return;
    const { num_head_channels: each, num_heads: heads } = config;
    if (width % (each ?? heads)) {
      throw bad(
        `${width} channels of a level are no multiple of ${
          each ? `num_head_channels, ${each}` : `num_heads, ${heads}`
        }`,
      );
    }
  });
  return config;
}

/** Queries, keys and values of `[batch, tokens, 3 · channels]`, each `[batch, heads, tokens, size]`. */
function splitProducts(qkv: Tensor, heads: number, isNewOrder: boolean): Tensor[] {
  const [n, tokens, all] = qkv.shape, width = all / 3 / heads;
  // The older order has the three of a head beside each other.
  const [shape, axis, order] = isNewOrder
    ? [[n, tokens, 3, heads, width], 2, [0, 2, 1, 3]] as const
    : [[n, tokens, heads, 3, width], 3, [0, 2, 1, 3]] as const;
  const parts = reshape(qkv, shape);
  return [0, 1, 2].map((part) =>
    permute(reshape(slice(parts, axis, part, 1), [n, tokens, heads, width]), order)
  );
}

/** The layers of a network. */
class Layers extends NamedLayers {
  constructor(forward: Forward, readonly config: Encoder) {
    super(forward);
  }

  normed(name: string, x: Tensor): Tensor {
    return this.norm(name, x, this.config.norm_num_groups);
  }

  /** Residual block, which may halve or double the resolution. */
  resnet(
    name: string,
    x: Tensor,
    time: Tensor,
    channels: number,
    resample?: "up" | "down",
  ): Tensor {
    const { use_scale_shift_norm: isScaled, dropout } = this.config;
    const resize = { up: upsampleNearest, down: averagePool, none: (x: Tensor) => x }[
      resample ?? "none"
    ];
    const first = resize(silu(this.normed(`${name}.in_layers.0`, x)));
    const h = this.conv(`${name}.in_layers.2`, first, channels, 3);
    const size = isScaled ? 2 * channels : channels;
    const told = this.dense(`${name}.emb_layers.1`, silu(time), size);
    const each = reshape(told, [told.shape[0], 1, 1, size]), norm = `${name}.out_layers.0`;
    const [scale, shift] = [0, size - channels].map((start) => slice(each, 3, start, channels));
    const second = isScaled
      ? map([this.normed(norm, h), scale, shift], (h, a, b) => e.add(e.mul(h, e.add(a, 1)), b))
      : this.normed(norm, add(h, each));
    const kept = this.drop(silu(second), dropout);
    const out = this.conv(`${name}.out_layers.3`, kept, channels, 3, { init: "zeros" });
    const skip = resize(x);
    return add(
      x.shape[3] === channels ? skip : this.conv(`${name}.skip_connection`, skip, channels, 1),
      out,
    );
  }

  /** Attention over all pixels, plus what it is shown. */
  attend(name: string, x: Tensor, heads: number): Tensor {
    const [n, height, width, channels] = x.shape, { use_new_attention_order: isNew } = this.config;
    const tokens = reshape(this.normed(`${name}.norm`, x), [n, height * width, channels]);
    const [q, k, v] = splitProducts(this.dense(`${name}.qkv`, tokens, 3 * channels), heads, isNew);
    const mixed = reshape(permute(attention(q, k, v), [0, 2, 1, 3]), tokens.shape);
    return add(reshape(this.dense(`${name}.proj_out`, mixed, channels, "zeros"), x.shape), x);
  }

  /** The vector of timesteps. */
  time(timestep: Tensor): Tensor {
    const { model_channels: channels } = this.config, size = 4 * channels;
    const sinusoids = sinusoidalEmbedding(timestep, channels, 0, true);
    return this.dense("time_embed.2", silu(this.dense("time_embed.0", sinusoids, size)), size);
  }

  /** Heads of a level of so many channels. */
  heads(channels: number, usual: number): number {
    const { num_head_channels: each } = this.config;
    return each === null ? usual : channels / each;
  }

  /** The blocks on the way down and in the middle; what the way up is shown is added to `skips`. */
  encode(sample: Tensor, time: Tensor, skips: Tensor[], keep: (h: Tensor) => void): Tensor {
    const { config } = this, widths = widthsOf(config), last = widths.length - 1;
    let h = this.conv("input_blocks.0.0", sample, widths[0], 3);
    skips.push(h);
    const next = () => `input_blocks.${skips.length}`;
    widths.forEach((width, level) => {
      for (let i = 0; i < config.num_res_blocks; i++) {
        const block = next();
        h = this.resnet(`${block}.0`, h, time, width);
        if (hasAttention(config, level)) {
          h = this.attend(`${block}.1`, h, this.heads(width, config.num_heads));
        }
        skips.push(h);
        keep(h);
      }
      if (level === last) return;
      h = config.resblock_updown
        ? this.resnet(`${next()}.0`, h, time, width, "down")
        : this.conv(`${next()}.0.op`, h, width, 3, {
          window: { stride: 2, padding: [1, 1, 1, 1] },
        });
      skips.push(h);
      keep(h);
    });
    const width = widths[last];
    h = this.resnet("middle_block.0", h, time, width);
    h = this.attend("middle_block.1", h, this.heads(width, config.num_heads));
    h = this.resnet("middle_block.2", h, time, width);
    keep(h);
    return h;
  }
}

/** Ends of blocks, told to whoever computes some of them again. */
function segments({ onSegment }: Forward, start: Tensor): (h: Tensor) => void {
  let from = start;
  return (to) => {
    onSegment?.("block", { from, to });
    from = to;
  };
}

/**
 * The prediction.
 *
 * @param beside Further channels that the network is shown.
 */
function predict(
  config: GuidedDiffusionConfig,
  forward: Forward,
  { sample, timestep, conditions: { labels } }: NetworkInputs,
  beside: readonly Tensor[] = [],
): Tensor {
  checkSize(sample, config.in_channels, config.channel_mult.length);
  const net = new Layers(forward, config), keep = segments(forward, sample);
  const widths = widthsOf(config), skips: Tensor[] = [], { num_res_blocks: layers } = config;
  let time = net.time(timestep);
  if (config.num_classes !== null) {
    if (!labels) throw new InputError("The network has classes: class labels are missing");
    const shape = [config.num_classes, time.shape[1]];
    time = add(time, gather(net.plain("label_emb.weight", shape, "normal"), labels));
  }
  let h = net.encode(concat([sample, ...beside], 3), time, skips, keep), at = 0;
  for (let level = widths.length - 1; level >= 0; level--) {
    const width = widths[level], attends = hasAttention(config, level);
    for (let i = 0; i <= layers; i++) {
      const block = `output_blocks.${at++}`;
      h = net.resnet(`${block}.0`, concat([h, skips.pop()!], 3), time, width);
      if (attends) {
        const usual = config.num_heads_upsample ?? config.num_heads;
        h = net.attend(`${block}.1`, h, net.heads(width, usual));
      }
      if (level && i === layers) {
        const name = `${block}.${attends ? 2 : 1}`;
        h = config.resblock_updown
          ? net.resnet(name, h, time, width, "up")
          : net.conv(`${name}.conv`, upsampleNearest(h), width, 3);
      }
      keep(h);
    }
  }
  return net.conv("out.2", silu(net.normed("out.0", h)), config.out_channels, 3, { init: "zeros" });
}

/** Logits `[batch, classes]`. */
function classify(
  config: GuidedClassifierConfig,
  forward: Forward,
  { sample, timestep }: NetworkInputs,
): Tensor {
  checkSize(sample, config.in_channels, config.channel_mult.length);
  const net = new Layers(forward, config);
  const h = net.encode(sample, net.time(timestep), [], segments(forward, sample));
  const [n, height, width, channels] = h.shape, pixels = height * width;
  const shown = reshape(silu(net.normed("out.0", h)), [n, pixels, channels]);
  const place = net.plain("out.2.positional_embedding", [channels, pixels + 1], "normal");
  const tokens = add(concat([mean(shown, [1]), shown], 1), transpose(place));
  // Whatever the order in blocks, here it is the new one.
  const heads = channels / config.pool_head_channels;
  const [q, k, v] = splitProducts(
    net.dense("out.2.qkv_proj", tokens, 3 * channels),
    heads,
    true,
  );
  // What is asked is the mean, the first token.
  const pooled = reshape(attention(slice(q, 2, 0, 1), k, v), [n, channels]);
  return net.dense("out.2.c_proj", pooled, config.num_classes, "zeros");
}

/** What the classes of both say of items. */
const items = ({ sample_size: size, in_channels, channel_mult, dropout }: Encoder) => ({
  itemShape: [
    ...(typeof size === "number" ? [size, size] : size ?? [null, null]),
    in_channels,
  ] satisfies ItemShape,
  multiple: 2 ** (channel_mult.length - 1),
  hasDropout: dropout > 0,
});

const resize = ([height, width]: readonly number[]) => ({
  sample_size: height === width ? width : [height, width],
});

const classes = (below: number | null): Conditions =>
  below === null ? {} : { labels: { shape: [], dtype: "i32", below } };

/** The class of denoisers. */
export const guidedDiffusionUnet: NetworkMaker<GuidedDiffusionConfig> = defineNetwork({
  className: "GuidedDiffusionUNet",
  parse: (json) => parse(unetSchema, json, "GuidedDiffusionUNet"),
  format: (config) => config,
  resize,
  build: (config) => ({
    kind: "denoiser",
    ...items(config),
    outChannels: config.out_channels,
    conditions: () => classes(config.num_classes),
    forward: (forward, inputs) => predict(config, forward, inputs),
  }),
});
registerNetwork(guidedDiffusionUnet);

/** What a network that enlarges pictures is told of those of a shape. */
function besideItems(
  { factor, num_classes }: GuidedUpscalerConfig,
  [height, width, channels]: Shape,
): Conditions {
  if (height % factor || width % factor) {
    throw new InputError(
      `A network that enlarges by ${factor} is for sides that are multiples of ${factor}, not for ` +
        `${width}x${height}`,
    );
  }
  const shape = [height / factor, width / factor, channels];
  return { ...classes(num_classes), low_resolution: { shape, dtype: "f32" } };
}

/** The class of networks that enlarge pictures. */
export const guidedDiffusionUpscaler: NetworkMaker<GuidedUpscalerConfig> = defineNetwork({
  className: "GuidedDiffusionUpscaler",
  parse: (json) => parse(upscalerSchema, json, "GuidedDiffusionUpscaler"),
  format: (config) => config,
  resize,
  build: (config) => ({
    kind: "denoiser",
    ...items(config),
    // A multiple of both, if not the least.
    multiple: config.factor * 2 ** (config.channel_mult.length - 1),
    outChannels: config.out_channels,
    factor: config.factor,
    conditions: (item) => besideItems(config, item),
    forward(forward, inputs) {
      const [, height, width] = inputs.sample.shape, { low_resolution: low } = inputs.conditions;
      return predict(config, forward, inputs, [resizeBilinear(low, height, width)]);
    },
  }),
});
registerNetwork(guidedDiffusionUpscaler);

/** The class of classifiers. */
export const guidedDiffusionClassifier: NetworkMaker<GuidedClassifierConfig> = defineNetwork({
  className: "GuidedDiffusionClassifier",
  parse: (json) => parse(classifierSchema, json, "GuidedDiffusionClassifier"),
  format: (config) => config,
  resize,
  build: (config) => ({
    kind: "classifier",
    ...items(config),
    classes: config.num_classes,
    conditions: () => ({}),
    forward: (forward, inputs) => classify(config, forward, inputs),
  }),
});
registerNetwork(guidedDiffusionClassifier);
