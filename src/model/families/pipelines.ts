/**
 * Whole pipelines out of single files of other projects.
 *
 * @module
 */

import { parseSchedule } from "../../diffusion/schedule.ts";
import { assembleModel, type Model } from "../model.ts";
import { type AutoencoderNetwork, autoencoderNetwork, parseNetwork } from "../network.ts";
import { parseTextEncoder, type TextEncoderNetwork } from "../text_encoder.ts";
import { assembleNetwork, type Weighted } from "../weights.ts";
import { explained, type Family, type FamilyOptions, notesOf, type TensorMap } from "./family.ts";
import { type FamilyPipeline, stableDiffusion } from "./stable_diffusion.ts";

/** Those whose files hold all networks of a model that paints texts. */
const pipelines: readonly Family<FamilyPipeline>[] = [stableDiffusion];

/**
 * The family of whole pipelines that tensors are of, if they are of one.
 *
 * @example
 * ```ts
 * import { findPipelineFamily } from "@x/ddpm";
 *
 * const tensor = { dtype: "F32", shape: [1], bytes: new Uint8Array(4) };
 * const names = ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.quant_conv.weight"];
 * console.log(findPipelineFamily(new Map(names.map((name) => [name, tensor])))?.name);
 * ```
 */
export const findPipelineFamily = (tensors: TensorMap): Family<FamilyPipeline> | undefined =>
  pipelines.find(({ recognizes }) => recognizes(tensors));

/** The networks of a pipeline of a family, as far as they are there. */
export interface FamilyPieces {
  /** What denoises latents. */
  readonly denoiser?: Model;
  /** What makes latents of pictures, and pictures of latents. */
  readonly autoencoder?: Weighted<AutoencoderNetwork>;
  /** What reads texts. */
  readonly textEncoder?: Weighted<TextEncoderNetwork>;
  /** What is not there, or of a kind that is not known: pieces of a pipeline of diffusers, and why. */
  readonly missing: readonly string[];
  /** Types of the numbers of each network, by the piece that it is in a pipeline of diffusers. */
  readonly dtypes: Readonly<Record<string, string>>;
  /** What it was taken for, and what was taken for granted: clauses. */
  readonly notes: readonly string[];
}

/**
 * The networks that the tensors of a family make up together.
 *
 * @param what What they are called, for messages.
 * @throws {InputError} If tensors are missing or superfluous, or contradict what is known beside them.
 *
 * @example A checkpoint of Stable Diffusion
 * ```ts
 * import { findPipelineFamily, readPipelineFamily, readTensorFile } from "@x/ddpm";
 *
 * async function load(file: Uint8Array<ArrayBuffer>) {
 *   const { tensors } = await readTensorFile(file), family = findPipelineFamily(tensors);
 *   return family && readPipelineFamily(family, tensors, "the file").textEncoder;
 * }
 * console.log(load.name);
 * ```
 */
export function readPipelineFamily(
  family: Family<FamilyPipeline>,
  tensors: TensorMap,
  what: string,
  { config = {}, schedule }: FamilyOptions = {},
): FamilyPieces {
  return explained(family, what, () => {
    const { denoiser, autoencoder, textEncoder, ...rest } = family.read(tensors, config);
    const noise = schedule ?? parseSchedule(rest.schedule), source = denoiser?.weightSource;
    const card = { family: family.name, ...(source ? { weight_source: source } : {}) };
    const members = { unet: denoiser, vae: autoencoder, text_encoder: textEncoder };
    const there = Object.entries(members).flatMap(([name, member]) =>
      member ? [{ name, ...member }] : []
    );
    return {
      ...(denoiser && {
        denoiser: assembleModel(parseNetwork(denoiser.network), noise, denoiser.tensors, what, {
          card,
        }),
      }),
      ...(autoencoder && {
        autoencoder: assembleNetwork(
          autoencoderNetwork(parseNetwork(autoencoder.network)),
          autoencoder.tensors,
          what,
        ),
      }),
      ...(textEncoder && {
        textEncoder: assembleNetwork(
          parseTextEncoder(textEncoder.network),
          textEncoder.tensors,
          what,
        ),
      }),
      missing: rest.missing,
      dtypes: Object.fromEntries(there.map(({ name, tensors }) => [name, dtypesOf(tensors)])),
      notes: [...notesOf(family, ...there), ...(schedule ? [] : [rest.scheduleSource])],
    };
  });
}

/** The types of weights, each once. */
export const dtypesOf = (tensors: TensorMap): string =>
  [
    ...new Set(
      [...tensors.values()].map(({ dtype }) => dtype).filter((dtype) => /^B?F/.test(dtype)),
    ),
  ]
    .sort().join(", ");
