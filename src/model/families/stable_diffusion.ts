/**
 * Whole models of latent diffusion and Stable Diffusion in one file, as CompVis's `ldm` saves them: a
 * UNet, an autoencoder and a text encoder, each with the names of its own family, and tables of
 * the noise.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../../config.ts";
import { makeTables } from "../../diffusion/betas.ts";
import { parseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { toFloat32 } from "../../formats/safetensors.ts";
import type { Fields } from "../network.ts";
import { agree, below, type Family, type FamilyNetwork, type TensorMap } from "./family.ts";
import { ldmAutoencoder } from "./ldm_autoencoder.ts";
import { explainTextEncoder, readLdmTextEncoder } from "./ldm_text_encoder.ts";
import { findLdmUnet, ldmSchedule, ldmUnet, renameLdmUnet } from "./ldm_unet.ts";

/** What a family of whole pipelines makes of a file: its networks, as far as they are there. */
export interface FamilyPipeline {
  /** What denoises latents. */
  readonly denoiser?: FamilyNetwork;
  /** What makes latents of pictures, and pictures of latents. */
  readonly autoencoder?: FamilyNetwork;
  /** What reads texts. */
  readonly textEncoder?: FamilyNetwork;
  /** Its noise, as in a `scheduler_config.json`. */
  readonly schedule: Fields;
  /** Where that is from, a clause. */
  readonly scheduleSource: string;
  /** Networks that are not there, or not known: pieces of a pipeline of diffusers, and why. */
  readonly missing: readonly string[];
}

/** What a file begins its names with, and where its pieces are below that. */
const ROOTS = ["state_dict.", ""], UNET = "model.diffusion_model.";
const FIRST_STAGE = "first_stage_model.", TEXT_STAGE = "cond_stage_model.";
/** The first layer of every UNet. */
const MARK = `${UNET}input_blocks.0.0.weight`;
/** What else may be there: tables and scalars, averages, and what a training leaves beside them. */
const BESIDE = /^[^.]+$|^(model_ema|optimizer_states|lr_schedulers|callbacks|loops)\./;

const fields = z.record(z.string(), z.unknown());
const number = z.number();
const part = z.looseObject({ target: z.string(), params: fields }).partial();
/** What the original says in place of a network that it does without. */
const nothing = z.literal("__is_unconditional__").transform(() => ({ params: {} }));
/** The configurations of diffusers by the folders of a pipeline, or the original's own file. */
const schema = z.looseObject({
  ...{ unet: fields, vae: fields, text_encoder: fields, scheduler: fields },
  model: z.looseObject({
    params: z.looseObject({
      ...{ linear_start: number, linear_end: number, timesteps: number, scale_factor: number },
      ...{ image_size: number, parameterization: z.enum(["eps", "x0", "v"]) },
      ...{ unet_config: part, first_stage_config: part, cond_stage_config: part.or(nothing) },
    }).partial(),
  }),
}).partial();

const predictions = { eps: "epsilon", x0: "sample", v: "v_prediction" } as const;

/** What is known beside the file, by the names of diffusers but for the autoencoder's. */
interface Known {
  readonly unet: Fields;
  /** The arguments of the UNet by the names of the original. */
  readonly unetArguments: Fields;
  readonly autoencoder: Fields;
  readonly vae: Fields;
  readonly textEncoder: Fields;
  readonly schedule?: Fields | undefined;
}

/**
 * Reads what is known beside a file.
 *
 * @param usual The noise of which the original's settings change what they name.
 */
export function parseKnown(config: unknown, usual = ldmSchedule): Known {
  const { unet = {}, vae = {}, text_encoder = {}, scheduler, model } = parseWith(
    schema,
    config,
    "configuration of a model of latent diffusion",
  );
  const { unet_config, first_stage_config, cond_stage_config, ...params } = model?.params ?? {};
  const own = unet_config?.params ?? {}, text = cond_stage_config?.params ?? {};
  const noise: Fields = {
    ...(params.linear_start === undefined ? {} : { beta_start: params.linear_start }),
    ...(params.linear_end === undefined ? {} : { beta_end: params.linear_end }),
    ...(params.timesteps === undefined ? {} : { num_train_timesteps: params.timesteps }),
    ...(params.parameterization ? { prediction_type: predictions[params.parameterization] } : {}),
  };
  const scale = vae.scaling_factor ?? params.scale_factor;
  return {
    unet: {
      ...unetFields(own),
      ...(params.image_size === undefined ? {} : { sample_size: params.image_size }),
      ...givenFields(unet),
    },
    unetArguments: {
      ...(params.image_size === undefined ? {} : { image_size: params.image_size }),
      ...givenFields(own),
      ...givenFields(unet),
    },
    vae: givenFields(vae),
    autoencoder: {
      ...(first_stage_config?.params ? { params: first_stage_config.params } : {}),
      ...(vae.norm_num_groups == null ? {} : { norm_groups: vae.norm_num_groups }),
      ...(scale == null ? {} : { scale_factor: scale }),
    },
    textEncoder: { ...textFields(text), ...givenFields(text_encoder) },
    schedule: scheduler ?? (Object.keys(noise).length ? { ...usual, ...noise } : undefined),
  };
}

/** Arguments of the original's UNet that diffusers has too, and its heads. */
function unetFields(params: Fields): Fields {
  const names = {
    ...{ in_channels: "in_channels", out_channels: "out_channels" },
    ...{ context_dim: "cross_attention_dim", num_res_blocks: "layers_per_block" },
    ...{ num_heads: "attention_head_dim", use_linear_in_transformer: "use_linear_projection" },
    transformer_depth: "transformer_layers_per_block",
  };
  const { model_channels: width, channel_mult: factors, num_head_channels: size } = params;
  const list = z.array(number).safeParse(factors).data, base = number.safeParse(width).data;
  const widths = list && base ? list.map((factor) => base * factor) : undefined;
  const heads = number.positive().safeParse(size).data;
  return {
    ...Object.fromEntries(
      Object.entries(names).filter(([name]) => params[name] != null && params[name] !== -1)
        .map(([name, own]) => [own, params[name]]),
    ),
    ...(widths ? { block_out_channels: widths } : {}),
    ...(heads && widths ? { attention_head_dim: widths.map((width) => width / heads) } : {}),
  };
}

/** Arguments of the original's BERT; those of CLIP say nothing of the network. */
const textFields = (params: Fields): Fields =>
  Object.fromEntries(
    ["n_embed", "n_layer", "vocab_size", "max_seq_len"].filter((name) => name in params)
      .map((name) => [name, params[name]]),
  );

/** The size of latents, which no tensor tells, by the numbers that are read of a token, and whose. */
const usualSizes: ReadonlyMap<unknown, readonly [size: number, whose: string]> = new Map([
  [768, [64, "Stable Diffusion 1"]],
  [1280, [32, "text2img-large of latent diffusion"]],
  [640, [64, "text2img256 of latent diffusion"]],
]);

/** The network that denoises; `undefined` if it reads no texts. */
function readDenoiser(tensors: TensorMap, known: Fields): FamilyNetwork | undefined {
  const found = findLdmUnet(tensors);
  if (!found) return undefined;
  const { network, guesses, ...rest } = renameLdmUnet(found.tensors, known);
  const own = { ...rest, weightSource: found.weightSource };
  const usual = network.sample_size == null && usualSizes.get(network.cross_attention_dim);
  if (!usual) return { ...own, network, guesses };
  const [size, whose] = usual, guess = `its latents are ${size}x${size}, as in ${whose}`;
  return { ...own, network: { ...network, sample_size: size }, guesses: [...guesses, guess] };
}

/** The autoencoder, compared with what is known of it by the names of diffusers. */
export function readAutoencoder(
  tensors: TensorMap,
  { autoencoder, vae }: Pick<Known, "autoencoder" | "vae">,
): FamilyNetwork {
  const member = ldmAutoencoder.read(tensors, autoencoder), told = member.network;
  const { scaling_factor: scale, sample_size: size, ...given } = vae;
  agree(given, told);
  const taken = Number(told.scaling_factor);
  if (scale !== undefined && Math.abs(Number(scale) / taken - 1) > 1e-4) {
    throw new InputError(
      `its configuration says scaling_factor ${scale}, but its tensor scale_factor ${taken}`,
    );
  }
  return {
    ...member,
    network: { ...given, ...(size === undefined ? {} : { sample_size: size }), ...told },
  };
}

/**
 * The noise, compared with the table of it in the file.
 *
 * @param all The tensors, without what all names begin with.
 * @param known What a configuration says.
 * @param common What is taken for granted, and whose that is.
 */
export function readNoise(
  all: TensorMap,
  known: Fields | undefined,
  common: Fields = ldmSchedule,
  whose = "Stable Diffusion 1",
): Pick<FamilyPipeline, "schedule" | "scheduleSource"> {
  const usual = known
    ? { schedule: known, scheduleSource: "the noise is as its configuration says" }
    : {
      schedule: common,
      scheduleSource: `the noise and what is predicted are those of ${whose}`,
    };
  const tensor = all.get("betas"), table = tensor && [...toFloat32(tensor, "betas")];
  if (!table) return usual;
  const { betas } = makeTables(parseSchedule(usual.schedule));
  const isSame = betas.length === table.length &&
    betas.every((beta, t) => Math.abs(beta - table[t]) <= 1e-4 * beta);
  if (isSame) return usual;
  if (known) {
    throw new InputError("its configuration has another noise than the table betas in the file");
  }
  const { beta_schedule: _, beta_start: _start, beta_end: _end, ...rest } = common;
  return {
    schedule: { ...rest, num_train_timesteps: table.length, trained_betas: table },
    scheduleSource: `the noise is as the file has it, and what is predicted that of ${whose}`,
  };
}

/** What all names of a file begin with. */
const rootOf = (tensors: TensorMap) => ROOTS.find((root) => tensors.has(root + MARK));

/**
 * The tensors of a whole model, without what all names begin with.
 *
 * @throws {InputError} If one belongs to no network of it.
 */
export function tensorsOf(tensors: TensorMap): TensorMap {
  const all = below(tensors, rootOf(tensors)!), used = [UNET, FIRST_STAGE, TEXT_STAGE];
  for (const name of all.keys()) {
    if (BESIDE.test(name) || used.some((place) => name.startsWith(place))) continue;
    throw new InputError(
      `it holds ${name}, which belongs to no network of a pipeline that is known`,
    );
  }
  return all;
}

/** A layer of the attention that UNets have which read no texts. */
export const PLAIN_ATTENTION = "middle_block.1.qkv.weight";

/** Whether a whole model reads no texts: it attends to none, and has no network for them. */
export function isUnconditional(tensors: TensorMap): boolean {
  const root = rootOf(tensors);
  return root !== undefined && tensors.has(root + UNET + PLAIN_ATTENTION) &&
    ![...tensors.keys()].some((name) => name.startsWith(root + TEXT_STAGE));
}

function read(tensors: TensorMap, config: unknown): FamilyPipeline {
  const known = parseKnown(config), all = tensorsOf(tensors);
  const denoiser = readDenoiser(tensors, known.unet), stage = below(all, TEXT_STAGE);
  const hasAutoencoder = ldmAutoencoder.recognizes(tensors);
  const textEncoder = readLdmTextEncoder(stage, known.textEncoder);
  return {
    ...(denoiser ? { denoiser } : {}),
    ...(hasAutoencoder ? { autoencoder: readAutoencoder(tensors, known) } : {}),
    ...(textEncoder ? { textEncoder } : {}),
    ...readNoise(all, known.schedule),
    missing: [
      ...(denoiser ? [] : ["unet (model.diffusion_model without attention to a text)"]),
      ...(hasAutoencoder ? [] : ["vae (no first_stage_model)"]),
      ...(textEncoder ? [] : [`text_encoder (${explainTextEncoder(stage)})`]),
    ],
  };
}

/** The family. */
export const stableDiffusion: Family<FamilyPipeline> = {
  name: "CompVis/latent-diffusion and Stable Diffusion",
  recognizes: (tensors) =>
    rootOf(tensors) !== undefined && !ldmUnet.recognizes(tensors) && !isUnconditional(tensors),
  read,
};
