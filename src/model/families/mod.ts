/**
 * Models out of the weights of other projects, which are told by their names and shapes.
 *
 * @module
 */

import { parseSchedule } from "../../diffusion/schedule.ts";
import { assembleModel, type Model } from "../model.ts";
import { type AutoencoderNetwork, autoencoderNetwork, parseNetwork } from "../network.ts";
import { assembleNetwork, type Weighted } from "../weights.ts";
import { ddpmOriginal } from "./ddpm_original.ts";
import {
  explained,
  type Family,
  type FamilyNetwork,
  type FamilyOptions,
  notesOf,
  type TensorMap,
} from "./family.ts";
import { guidedDiffusion } from "./guided_diffusion.ts";
import { ldmAutoencoder } from "./ldm_autoencoder.ts";
import { ldmUnconditional } from "./ldm_unconditional.ts";
import { ldmUnet } from "./ldm_unet.ts";
import { lucidrains } from "./lucidrains.ts";

/** Those that are known. */
const families: readonly Family[] = [
  ...[ddpmOriginal, lucidrains, guidedDiffusion, ldmUnet],
  ldmUnconditional,
];

/** Where files may come from that are no models of this project. */
export const familyNames: readonly string[] = families.map(({ name }) => name);

/**
 * The family that tensors are of, if they are of one.
 *
 * @example
 * ```ts
 * import { findFamily } from "@x/ddpm";
 *
 * const tensor = { dtype: "F32", shape: [1], bytes: new Uint8Array(4) };
 * const names = ["temb.dense.0.weight", "down.0.block.0.conv1.weight"];
 * console.log(findFamily(new Map(names.map((name) => [name, tensor])))?.name);
 * ```
 */
export const findFamily = (tensors: TensorMap): Family | undefined =>
  families.find(({ recognizes }) => recognizes(tensors));

/** Those whose files hold an autoencoder, be it beside other networks. */
const autoencoders: readonly Family<FamilyNetwork>[] = [ldmAutoencoder];

/**
 * The family of autoencoders that tensors are of, or that some of them are of, if there is one.
 *
 * @example
 * ```ts
 * import { findAutoencoderFamily } from "@x/ddpm";
 *
 * const tensor = { dtype: "F32", shape: [1], bytes: new Uint8Array(4) };
 * const names = ["encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"];
 * console.log(findAutoencoderFamily(new Map(names.map((name) => [name, tensor])))?.name);
 * ```
 */
export const findAutoencoderFamily = (tensors: TensorMap): Family<FamilyNetwork> | undefined =>
  autoencoders.find(({ recognizes }) => recognizes(tensors));

/** A model of a family. */
export interface FamilyModel {
  /** The model. */
  readonly model: Model;
  /** What it was taken for, and what was taken for granted: clauses. */
  readonly notes: readonly string[];
}

/**
 * The model that the tensors of a family make up.
 *
 * @param what What they are called, for messages.
 * @throws {InputError} If tensors are missing or superfluous, or contradict what is known beside them.
 *
 * @example A file of PyTorch, wherever it is from
 * ```ts
 * import { findFamily, readFamily, readTensorFile, Sampler } from "@x/ddpm";
 *
 * async function load(file: Uint8Array<ArrayBuffer>) {
 *   const { tensors } = await readTensorFile(file), family = findFamily(tensors);
 *   return family && readFamily(family, tensors, "the file", { config: { resolution: 32 } }).model;
 * }
 * console.log(load.name, Sampler.name);
 * ```
 */
export function readFamily(
  family: Family,
  tensors: TensorMap,
  what: string,
  { config = {}, schedule }: FamilyOptions = {},
): FamilyModel {
  return explained(family, what, () => {
    const member = family.read(tensors, config), { weightSource, autoencoder: coder } = member;
    const network = parseNetwork(member.network);
    const noise = schedule ?? parseSchedule(member.schedule);
    const card = { family: family.name, ...(weightSource ? { weight_source: weightSource } : {}) };
    const autoencoder = coder && assembleAutoencoder(coder, what), networks = coder ? [coder] : [];
    return {
      model: assembleModel(network, noise, member.tensors, what, {
        card,
        ...(autoencoder ? { autoencoder } : {}),
      }),
      notes: [
        ...notesOf(family, member, ...networks),
        ...(schedule ? [] : [member.scheduleSource]),
      ],
    };
  });
}

/** An autoencoder of a family. */
export interface FamilyAutoencoder {
  /** The autoencoder. */
  readonly autoencoder: Weighted<AutoencoderNetwork>;
  /** What it was taken for, and what was taken for granted: clauses. */
  readonly notes: readonly string[];
}

/**
 * The autoencoder that the tensors of a family make up.
 *
 * @param what What they are called, for messages.
 * @param config Arguments of the original's network, by its names: an object.
 * @throws {InputError} If tensors are missing or superfluous, or contradict what is known beside them.
 *
 * @example The first stage of a latent diffusion model
 * ```ts
 * import { findAutoencoderFamily, readAutoencoderFamily, readTensorFile } from "@x/ddpm";
 *
 * async function load(file: Uint8Array<ArrayBuffer>) {
 *   const { tensors } = await readTensorFile(file), family = findAutoencoderFamily(tensors);
 *   return family && readAutoencoderFamily(family, tensors, "the file").autoencoder;
 * }
 * console.log(load.name);
 * ```
 */
export function readAutoencoderFamily(
  family: Family<FamilyNetwork>,
  tensors: TensorMap,
  what: string,
  config: unknown = {},
): FamilyAutoencoder {
  return explained(family, what, () => {
    const member = family.read(tensors, config);
    return { autoencoder: assembleAutoencoder(member, what), notes: notesOf(family, member) };
  });
}

const assembleAutoencoder = (
  { network, tensors }: FamilyNetwork,
  what: string,
): Weighted<AutoencoderNetwork> =>
  assembleNetwork(autoencoderNetwork(parseNetwork(network)), tensors, what);
