/**
 * The UNet of denoising-diffusion-pytorch (Phil Wang), versions 1.8 to 2: a 7 × 7 convolution first,
 * pixels to channels on the way down, linear attention (Shen et al., "Efficient attention", 2021) where
 * attention over all pixels would be too much, and in later versions norms of vectors and learned keys.
 * Parameters have the names of the original.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import { attention } from "../gpu/ops/attention.ts";
import { concat } from "../gpu/ops/concat.ts";
import { add, gelu, map, mul, silu, square } from "../gpu/ops/map.ts";
import { matmul } from "../gpu/ops/matmul.ts";
import { upsampleNearest } from "../gpu/ops/resample.ts";
import { softmax } from "../gpu/ops/softmax.ts";
import { sum } from "../gpu/ops/sum.ts";
import { broadcastTo, permute, reshape, slice, transpose } from "../gpu/ops/view.ts";
import * as e from "../gpu/expression.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { checkSize } from "./image_size.ts";
import {
  defineNetwork,
  type Fields,
  type Forward,
  type NetworkInputs,
  type NetworkMaker,
  registerNetwork,
} from "./network.ts";
import { NamedLayers } from "./named_layers.ts";
import { sinusoidalEmbedding } from "./time_embedding.ts";

const channels = z.int().min(1).max(65536),
  perLevel = <T extends z.ZodType>(of: T) => z.array(of).min(1).max(16);

/** The fields, which are arguments of the original's `Unet` where it has such. */
const schema = z.strictObject({
  sample_size: z.union([channels, z.tuple([channels, channels]), z.null()]).default(null),
  channels: channels.default(3),
  dim: channels,
  init_dim: channels,
  dim_mults: perLevel(z.number().positive().max(65536)),
  /** Groups of normalisation within blocks; null for norms of the vector of a pixel. */
  resnet_block_groups: channels.nullable(),
  full_attn: perLevel(z.boolean()),
  attn_heads: perLevel(channels),
  attn_dim_head: perLevel(channels),
  mid_attn_heads: channels,
  mid_attn_dim_head: channels,
  num_mem_kv: z.int().min(0).max(65536),
});

/** The architecture. */
export type DenoisingDiffusionConfig = z.infer<typeof schema>;

/** Fields for which null is a value. */
const NULLABLE = "resnet_block_groups";

function parse(json: Fields): DenoisingDiffusionConfig {
  const what = "configuration of a DenoisingDiffusionUnet";
  const given = { ...givenFields(json), ...(json[NULLABLE] === null ? { [NULLABLE]: null } : {}) };
  const config = parseWith(schema, given, what), levels = config.dim_mults.length;
  for (const field of ["full_attn", "attn_heads", "attn_dim_head"] as const) {
    if (config[field].length === levels) continue;
    throw new InputError(
      `Bad ${what}: ${levels} dim_mults need as many ${field}, not ${config[field].length}`,
    );
  }
  const groups = config.resnet_block_groups ?? 1, widths = widthsOf(config);
  const odd = [config.dim, ...widths].find((n) => !Number.isInteger(n) || n % groups || n < 1);
  if (odd !== undefined) {
    throw new InputError(
      `Bad ${what}: ${odd} channels are no multiple of resnet_block_groups, ${groups}`,
    );
  }
  return config;
}

/** Channels before each level, and after the last. */
const widthsOf = (
  { dim, init_dim, dim_mults }: Pick<DenoisingDiffusionConfig, "dim" | "init_dim" | "dim_mults">,
): number[] => [init_dim, ...dim_mults.map((factor) => dim * factor)];

/** Its layers. */
class Layers extends NamedLayers {
  constructor(forward: Forward, readonly groups: number | null) {
    super(forward);
  }

  /** The vector of each pixel with the length √channels, scaled. */
  rms(name: string, x: Tensor): Tensor {
    const channels = x.shape[3], scale = this.plain(`${name}.g`, [1, channels, 1, 1]);
    return map(
      [x, sum(square(x), [3]), reshape(scale, [channels])],
      (x, length, g) =>
        e.mul(e.div(x, e.sqrt(e.max(length, 1e-24))), e.mul(g, Math.sqrt(channels))),
    );
  }

  /** Convolution, norm, and where there is a time scale and shift by it, then SiLU. */
  block(name: string, x: Tensor, channels: number, time?: Tensor): Tensor {
    const h = this.conv(`${name}.proj`, x, channels, 3);
    const normed = this.groups === null
      ? this.rms(`${name}.norm`, h)
      : this.norm(`${name}.norm`, h, this.groups);
    if (!time) return silu(normed);
    const [scale, shift] = [0, channels].map((start) => slice(time, 3, start, channels));
    return silu(map([normed, scale, shift], (x, a, b) => e.add(e.mul(x, e.add(a, 1)), b)));
  }

  /** Residual block. */
  resnet(name: string, x: Tensor, time: Tensor, channels: number): Tensor {
    const told = this.dense(`${name}.mlp.1`, silu(time), 2 * channels);
    const h = this.block(
      `${name}.block1`,
      x,
      channels,
      reshape(told, [told.shape[0], 1, 1, 2 * channels]),
    );
    const out = this.block(`${name}.block2`, h, channels);
    const skip = x.shape[3] === channels ? x : this.conv(`${name}.res_conv`, x, channels, 1);
    return add(out, skip);
  }

  /** Attention over all pixels, or linear attention, plus what it is shown. */
  attend(
    name: string,
    x: Tensor,
    { heads, size, memory, isFull }: {
      readonly heads: number;
      readonly size: number;
      readonly memory: number;
      readonly isFull: boolean;
    },
  ): Tensor {
    const [n, height, width, channels] = x.shape, inner = heads * size, pixels = height * width;
    const learnt = memory
      ? this.plain(
        `${name}.mem_kv`,
        [2, heads, ...(isFull ? [memory, size] : [size, memory])],
        "normal",
      )
      : undefined;
    const qkv = this.conv(`${name}.to_qkv`, this.rms(`${name}.norm`, x), 3 * inner, 1, {
      hasBias: false,
    });
    const [q, k, v] = [0, 1, 2].map((part) => {
      const rows = reshape(slice(qkv, 3, part * inner, inner), [n, pixels, heads, size]);
      const split = permute(rows, [0, 2, 1, 3]);
      if (!part || !learnt) return split;
      // Learned keys and values come before those of pixels.
      const own = slice(learnt, 0, part - 1, 1), tokens = isFull ? own : transpose(own);
      return concat([broadcastTo(tokens, [n, heads, memory, size]), split], 2);
    });
    const mixed = isFull ? attention(q, k, v) : linearAttention(q, k, v);
    const joined = reshape(permute(mixed, [0, 2, 1, 3]), [n, height, width, inner]);
    const out = isFull
      ? this.conv(`${name}.to_out`, joined, channels, 1)
      : this.rms(`${name}.to_out.1`, this.conv(`${name}.to_out.0`, joined, channels, 1));
    return add(out, x);
  }
}

/** Queries `[..., n, size]` of what keys and values `[..., m, size]` come to in all. */
function linearAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const context = matmul(softmax(transpose(k)), v);
  return mul(matmul(softmax(q), context), 1 / Math.sqrt(q.shape.at(-1)!));
}

/** Squares of 2 × 2 pixels as one pixel each, whose channels are those of the four in turn. */
function pixelsToChannels(x: Tensor): Tensor {
  const [n, h, w, c] = x.shape;
  const squares = permute(reshape(x, [n, h / 2, 2, w / 2, 2, c]), [0, 1, 3, 5, 2, 4]);
  return reshape(squares, [n, h / 2, w / 2, 4 * c]);
}

/** The prediction. */
function predict(
  config: DenoisingDiffusionConfig,
  forward: Forward,
  { sample, timestep }: NetworkInputs,
): Tensor {
  checkSize(sample, config.channels, config.dim_mults.length);
  const net = new Layers(forward, config.resnet_block_groups), { dim } = config;
  const widths = widthsOf(config), last = config.dim_mults.length - 1;
  const kind = (level: number) => ({
    ...{ heads: config.attn_heads[level], size: config.attn_dim_head[level] },
    ...{ memory: config.num_mem_kv, isFull: config.full_attn[level] },
  });
  const sinusoids = sinusoidalEmbedding(timestep, dim, 1, false);
  const time = net.dense("time_mlp.3", gelu(net.dense("time_mlp.1", sinusoids, 4 * dim)), 4 * dim);
  const first = net.conv("init_conv", sample, config.init_dim, 7), skips: Tensor[] = [];
  let h = first, from = first;
  const keep = () => {
    forward.onSegment?.("block", { from, to: h });
    from = h;
  };
  for (let i = 0; i <= last; i++) {
    h = net.resnet(`downs.${i}.0`, h, time, widths[i]);
    skips.push(h);
    h = net.attend(`downs.${i}.2`, net.resnet(`downs.${i}.1`, h, time, widths[i]), kind(i));
    skips.push(h);
    h = i < last
      ? net.conv(`downs.${i}.3.1`, pixelsToChannels(h), widths[i + 1], 1)
      : net.conv(`downs.${i}.3`, h, widths[i + 1], 3);
    keep();
  }
  h = net.resnet("mid_block1", h, time, widths[last + 1]);
  h = net.attend("mid_attn", h, {
    ...{ heads: config.mid_attn_heads, size: config.mid_attn_dim_head },
    ...{ memory: config.num_mem_kv, isFull: true },
  });
  h = net.resnet("mid_block2", h, time, widths[last + 1]);
  keep();
  for (let i = 0; i <= last; i++) {
    const level = last - i, width = widths[level + 1];
    h = net.resnet(`ups.${i}.0`, concat([h, skips.pop()!], 3), time, width);
    h = net.resnet(`ups.${i}.1`, concat([h, skips.pop()!], 3), time, width);
    h = net.attend(`ups.${i}.2`, h, kind(level));
    h = level
      ? net.conv(`ups.${i}.3.1`, upsampleNearest(h), widths[level], 3)
      : net.conv(`ups.${i}.3`, h, widths[level], 3);
    keep();
  }
  h = net.resnet("final_res_block", concat([h, first], 3), time, widths[0]);
  return net.conv("final_conv", h, config.channels, 1);
}

/** The class of networks. */
export const denoisingDiffusionUnet: NetworkMaker<DenoisingDiffusionConfig> = defineNetwork({
  className: "DenoisingDiffusionUnet",
  parse,
  format: (config) => config,
  resize: ([height, width]) => ({ sample_size: height === width ? width : [height, width] }),
  build(config) {
    const { sample_size: size, channels } = config;
    return {
      kind: "denoiser",
      itemShape: [...(typeof size === "number" ? [size, size] : size ?? [null, null]), channels],
      multiple: 2 ** (config.dim_mults.length - 1),
      outChannels: channels,
      conditions: () => ({}),
      forward: (forward, inputs) => predict(config, forward, inputs),
    };
  },
});
registerNetwork(denoisingDiffusionUnet);
