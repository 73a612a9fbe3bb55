/**
 * What the `Trainer` of denoising-diffusion-pytorch (Phil Wang) saves: a `GaussianDiffusion` with its
 * schedule and `Unet`, the moving average of both, and an optimizer.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { toFloat32 } from "../../formats/safetensors.ts";
import {
  agree,
  below,
  type Family,
  type FamilyMember,
  levelsOf,
  sizeIn,
  type TensorMap,
} from "./family.ts";

/** Where a `GaussianDiffusion` may be in a file, that of the moving average first. */
const places = ["ema.ema_model.", "model.", ""];
const AVERAGE = places[0];

/** Heads of attention and their width where a file does not tell them: the original's defaults. */
const USUAL_HEADS = 4, USUAL_SIZE = 32;

/** The network below `model.`: its tensors have the same names here. */
const NETWORK = "model.";

/** What predictions are called there and here. */
const objectives = { pred_noise: "epsilon", pred_x0: "sample", pred_v: "v_prediction" } as const;
type Objective = keyof typeof objectives;

const whole = z.int().min(1), heads = z.union([whole, z.array(whole)]);

/** Arguments of the original. */
const schema = z.strictObject({
  version: z.string(),
  Unet: z.strictObject({
    dim: whole,
    init_dim: whole.nullable(),
    dim_mults: z.array(z.number()),
    channels: whole,
    self_condition: z.literal(false),
    resnet_block_groups: whole,
    learned_variance: z.literal(false),
    learned_sinusoidal_cond: z.literal(false),
    random_fourier_features: z.literal(false),
    sinusoidal_pos_emb_theta: z.literal(10000),
    dropout: z.number(),
    attn_dim_head: heads,
    attn_heads: heads,
    full_attn: z.union([z.boolean(), z.array(z.boolean())]).nullable(),
    flash_attn: z.boolean(),
  }).partial(),
  GaussianDiffusion: z.strictObject({
    image_size: z.union([whole, z.tuple([whole, whole])]),
    timesteps: whole,
    sampling_timesteps: whole.nullable(),
    objective: z.enum(["pred_noise", "pred_x0", "pred_v"]),
    beta_schedule: z.string(),
    schedule_fn_kwargs: z.unknown(),
    ddim_sampling_eta: z.number(),
    auto_normalize: z.literal(true),
    offset_noise_strength: z.number(),
    min_snr_loss_weight: z.boolean(),
    min_snr_gamma: z.number(),
    immiscible: z.boolean(),
  }).partial(),
}).partial();
type Arguments = z.infer<typeof schema>;

/** Where in a file the weights are that are taken. */
const placeIn = (tensors: TensorMap): string | undefined =>
  places.find((place) =>
    ["init_conv.weight", "mid_attn.to_qkv.weight", "final_res_block.block1.proj.weight"]
      .every((name) => tensors.has(place + NETWORK + name)) && tensors.has(`${place}betas`)
  );

/** The configuration of the network. */
function describe(net: TensorMap, { Unet: given = {}, GaussianDiffusion = {} }: Arguments) {
  const levels = levelsOf(net, "downs.*.0."), each = Array.from({ length: levels }, (_, i) => i);
  const dim = sizeIn(net, "time_mlp.1.weight", 1), initDim = sizeIn(net, "init_conv.weight", 0);
  const channels = sizeIn(net, "init_conv.weight", 1);
  if (sizeIn(net, "final_conv.weight", 0) !== channels) {
    throw new InputError(
      "networks with self_condition or learned_variance are not supported, of which the channels that " +
        "go in are others than those that come out",
    );
  }
  const isFull = each.map((i) => net.has(`downs.${i}.2.to_out.weight`));
  const widths = each.map((i) => {
    const next = i < levels - 1 ? `downs.${i}.3.1.weight` : `downs.${i}.3.weight`;
    return sizeIn(net, next, 0);
  });
  const isGrouped = net.has("mid_block1.block1.norm.weight");
  const at = <T>(value: T | readonly T[] | undefined, level: number) =>
    Array.isArray(value) ? value[level] as T : value as T | undefined;
  const attention = (name: string, isFull: boolean, level?: number) => {
    const asked = level === undefined ? undefined : at(given.attn_heads, level);
    const inner = sizeIn(net, `${name}.to_qkv.weight`, 0) / 3, memory = `${name}.mem_kv`;
    const told = net.has(memory) ? sizeIn(net, memory, 1) : undefined;
    const usual = inner === USUAL_HEADS * USUAL_SIZE ? USUAL_HEADS : undefined;
    const heads = told ?? asked ?? usual;
    if (!heads || inner % heads) {
      throw new InputError(
        `${name} has ${inner} channels, of how many heads must be told: attn_heads`,
      );
    }
    const size = inner / heads,
      asWide = level === undefined ? undefined : at(given.attn_dim_head, level);
    agree({ attn_heads: asked ?? heads, attn_dim_head: asWide ?? size }, {
      ...{ attn_heads: heads, attn_dim_head: size },
    });
    return { heads, size, memory: told ? sizeIn(net, memory, isFull ? 2 : 3) : 0 };
  };
  const attentions = each.map((i) => attention(`downs.${i}.2`, isFull[i], i));
  // In version 1 it is the default, whatever the levels have.
  const middle = attention("mid_attn", true);
  const told = {
    ...{ dim, init_dim: initDim, channels, dim_mults: widths.map((width) => width / dim) },
    full_attn: isFull,
  };
  const { full_attn, ...rest } = given;
  agree({
    ...rest,
    ...(Array.isArray(full_attn) ? { full_attn } : {}),
    ...(rest.init_dim === null ? { init_dim: dim } : {}),
  }, told);
  return {
    ...{ _class_name: "DenoisingDiffusionUnet", ...told },
    sample_size: GaussianDiffusion.image_size ?? null,
    resnet_block_groups: isGrouped ? given.resnet_block_groups ?? 8 : null,
    attn_heads: attentions.map(({ heads }) => heads),
    attn_dim_head: attentions.map(({ size }) => size),
    ...{ mid_attn_heads: middle.heads, mid_attn_dim_head: middle.size, num_mem_kv: middle.memory },
  };
}

/** What the network predicts, by the weights of its loss: of the least noise they may be limited. */
function objectiveOf(weights: TensorMap): Objective | undefined {
  const [loss, alphas] = ["loss_weight", "alphas_cumprod"].map((name) => weights.get(name));
  if (!loss || !alphas) return undefined;
  const losses = toFloat32(loss), ratios = toFloat32(alphas).map((a) => a / (1 - a));
  const expected: Record<Objective, (ratio: number) => number> = {
    ...{ pred_noise: () => 1, pred_x0: (ratio) => ratio, pred_v: (ratio) => ratio / (1 + ratio) },
  };
  const noisy = [...ratios.keys()].filter((i) => ratios[i] < 1);
  const found = (Object.keys(expected) as Objective[]).filter((objective) =>
    noisy.every((i) => {
      const weight = expected[objective](ratios[i]);
      return Math.abs(losses[i] - weight) <= 1e-3 * weight + 1e-6;
    })
  );
  return noisy.length && found.length === 1 ? found[0] : undefined;
}

function read(tensors: TensorMap, config: unknown): FamilyMember {
  const given = parseWith(
    schema,
    config,
    "configuration of a model of denoising-diffusion-pytorch",
  );
  const place = placeIn(tensors)!, all = below(tensors, place), net = below(all, NETWORK);
  const betas = [...toFloat32(all.get("betas")!, "betas")],
    diffusion = given.GaussianDiffusion ?? {};
  const found = objectiveOf(all), objective = found ?? diffusion.objective;
  if (!objective) throw new InputError("what it predicts must be told: objective");
  agree(diffusion, { timesteps: betas.length, objective });
  return {
    network: describe(net, given),
    schedule: {
      trained_betas: betas,
      prediction_type: objectives[objective],
      variance_type: "fixed_small",
    },
    scheduleSource: "the noise and what is predicted are as the file has them",
    weightSource: place === AVERAGE
      ? "the moving average of the weights was taken"
      : "the weights are no moving average: the file has none",
    guesses: diffusion.image_size ? [] : [
      "the size of its pictures is not in the file; a config.json beside it can tell image_size",
    ],
    tensors: net,
  };
}

/** The family. */
export const lucidrains: Family = {
  name: "lucidrains/denoising-diffusion-pytorch",
  recognizes: (tensors) => placeIn(tensors) !== undefined,
  read,
};
