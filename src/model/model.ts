/**
 * A {@linkcode Model}: architecture, schedule and weights, from and to the files that hold them.
 *
 * A model is one safetensors file, its configuration in the header; the tensors have the names and
 * shapes of diffusers, so that Python reads them too.
 *
 * @module
 */

import { z } from "zod";
import { parsePythonJson, parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import {
  type AutoencoderNetwork,
  autoencoderNetwork,
  formatNetwork,
  isOfNoisyItems,
  type Network,
  type NoisyItemsNetwork,
  noisyItemsNetwork,
  parseNetwork,
  trainableNetwork,
} from "./network.ts";
import "./unet.ts";
import "./unet_condition.ts";
import "./text_unet.ts";
import "./super_resolution.ts";
import "./unet_classifier.ts";
import "./inception.ts";
import "./feature_classifier.ts";
import "./denoising_diffusion_unet.ts";
import "./guided_diffusion_unet.ts";
import "./clip_text.ts";
import "./safety_checker.ts";
import "./bert_embedder.ts";
import "./autoencoder_kl.ts";
import "./vq_model.ts";
import { type DualEncoderNetwork, dualEncoderNetwork } from "./dual_encoder.ts";
import { flatten, initializeParameters, type ParameterValues } from "./parameters.ts";
import { nameTensors, parametersFrom, type WeightFileDType } from "./tensors.ts";
import type { Weighted } from "./weights.ts";
import type { Bytes } from "../formats/bytes.ts";
import {
  collect,
  type EncodedFile,
  encodeSafetensors,
  type FileTensor,
  readSafetensors,
  type Safetensors,
} from "../formats/safetensors.ts";
import { formatSchedule, parseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";

/** A network that was trained, or is about to be; its parameters in memory, or in a file. */
export interface Model<P extends ParameterValues = ParameterValues> {
  /** The architecture, and where each parameter lies in `parameters`. */
  readonly network: NoisyItemsNetwork;
  /** The noise it is trained on, and how sampling walks it. */
  readonly schedule: ScheduleConfig;
  /** All parameters: flat, or to be read one by one. */
  readonly parameters: P;
  /** What its classes are called. Where the network knows one more, that stands for "none". */
  readonly classes?: readonly string[] | undefined;
  /** What is known of its making: data, steps, seed, as text. */
  readonly card: Readonly<Record<string, string>>;
  /**
   * Of a model of latents: what made them of pictures, and makes pictures of them, by `Autoencoder`.
   * Its samples are latents.
   */
  readonly autoencoder?: Weighted<AutoencoderNetwork> | undefined;
  /** The file of the scheduler that it came with, which says how it is sampled elsewhere. */
  readonly scheduler?: Readonly<Record<string, unknown>> | undefined;
}

/** A model with its parameters in memory. */
export type LoadedModel = Model<Float32Array<ArrayBuffer>>;

/** An autoencoder, and what is known of its making; it knows nothing of noise. */
export interface AutoencoderModel<P extends ParameterValues = ParameterValues> {
  /** The architecture, and where each parameter lies in `parameters`. */
  readonly network: AutoencoderNetwork;
  /** All parameters: flat, or to be read one by one. */
  readonly parameters: P;
  /** What is known of its making: data, steps, seed, as text. */
  readonly card: Readonly<Record<string, string>>;
}

/** A dual encoder, and what is known of its making; it knows nothing of noise. */
export interface DualEncoderModel<P extends ParameterValues = ParameterValues> {
  /** The architecture, and where each parameter lies in `parameters`. */
  readonly network: DualEncoderNetwork;
  /** All parameters: flat, or to be read one by one. */
  readonly parameters: P;
  /** What is known of its making: data, steps, seed, as text. */
  readonly card: Readonly<Record<string, string>>;
}

/** What a {@linkcode Trainer} trains. */
export type Trainable<P extends ParameterValues = ParameterValues> =
  | Model<P>
  | AutoencoderModel<P>
  | DualEncoderModel<P>;

/** Whether what is trained is a dual encoder. */
export const isDualEncoder = <P extends ParameterValues>(
  model: Trainable<P>,
): model is DualEncoderModel<P> => model.network.kind === "dual encoder";

/**
 * A model with the initial weights of the DDPM paper: Xavier uniform, and zeros in the last layer
 * of every residual branch and of the network.
 *
 * @param schedule As in a `scheduler_config.json`.
 *
 * @example
 * ```ts
 * import { initializeModel, parseNetwork } from "@x/ddpm";
 *
 * const network = parseNetwork({ block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * console.log(initializeModel(network, { beta_schedule: "linear" }, 42).network.layout.count);
 * ```
 */
export function initializeModel(
  network: Network,
  schedule: unknown,
  seed: number,
  classes?: readonly string[],
): LoadedModel {
  return {
    ...{ network: noisyItemsNetwork(network), schedule: parseSchedule(schedule) },
    parameters: initializeParameters(network.layout, seed),
    ...(classes ? { classes } : {}),
    card: {},
  };
}

/** Keys of the header of our own files. */
const NETWORK_KEY = "network", SCHEDULE_KEY = "scheduler", CLASSES_KEY = "classes";
/** The autoencoder of a model of latents in the header, and before the names of its tensors. */
const AUTOENCODER_KEY = "autoencoder", AUTOENCODER_PLACE = "vae.";
/** What safetensors' own writers say of the tool whose tensors they are; some readers want it. */
const FORMAT_KEY = "format", FORMAT = "pt";
/** Where version 0.1.0 had the network. */
const FORMER_KEY = "unet";

/** Whether the header of a file says of what network its weights are. */
export const holdsNetwork = (metadata: Readonly<Record<string, string>>): boolean =>
  [NETWORK_KEY, FORMER_KEY].some((key) => Object.hasOwn(metadata, key));

/**
 * Reads a model from the bytes of one file, all of it. {@linkcode readModel} leaves weights where they
 * are.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If the file is no safetensors file, lacks a configuration, or its tensors do
 * not fit the configuration.
 *
 * @example
 * ```ts
 * import { initializeModel, parseModel, parseNetwork, serializeModel } from "@x/ddpm";
 *
 * const network = parseNetwork({ block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const bytes = serializeModel(initializeModel(network, {}, 0));
 * console.log(parseModel(bytes).network.config.block_out_channels);
 * ```
 */
export function parseModel(bytes: Uint8Array<ArrayBuffer>, what = "the model"): LoadedModel {
  const model = readModel(bytes, what), { autoencoder } = model;
  const load = ({ network, parameters }: Weighted) => flatten(network.layout, parameters);
  return {
    ...{ ...model, parameters: load(model) },
    ...(autoencoder ? { autoencoder: { ...autoencoder, parameters: load(autoencoder) } } : {}),
  };
}

/**
 * Reads a model from a file whose weights are read when they are needed, as by `Sampler.create()`:
 * there is never a copy of all of them. As long as the model is used, its file must be there.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If the file is no safetensors file, lacks a configuration, or its tensors do
 * not fit the configuration. That weights are finite is checked when they are read.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseNetwork, readModel, Sampler, serializeModel }
 *   from "@x/ddpm";
 *
 * const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = readModel(serializeModel(initializeModel(network, {}, 0)));
 * using device = await openDevice("cpu");
 * using sampler = await Sampler.create(device, model, { steps: 2, weightDType: "f16" });
 * console.log((await sampler.sample()).count);
 * ```
 */
export const readModel = (file: Uint8Array<ArrayBuffer> | Bytes, what = "the model"): Model =>
  modelFrom(readSafetensors(file, what), what);

/**
 * Reads an autoencoder from a file that {@linkcode serializeModel} made; its weights are read when they
 * are needed.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If the file is no safetensors file, holds another network, or its tensors do
 * not fit the configuration.
 *
 * @example
 * ```ts
 * import { autoencoderNetwork, initializeNetwork, parseNetwork, readAutoencoder, serializeModel }
 *   from "@x/ddpm";
 *
 * const network = autoencoderNetwork(parseNetwork({ _class_name: "AutoencoderKL",
 *   block_out_channels: [8], norm_num_groups: 4 }));
 * const bytes = serializeModel({ ...initializeNetwork(network, 0), card: { data: "mnist" } });
 * console.log(readAutoencoder(bytes).network.latentChannels); // 4
 * ```
 */
export function readAutoencoder(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "the autoencoder",
): AutoencoderModel {
  const model = trainableFrom(readSafetensors(file, what), what);
  return { ...model, network: autoencoderNetwork(model.network) };
}

/**
 * Reads a dual encoder from a file that {@linkcode serializeModel} made; its weights are read when they
 * are needed.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If the file is no safetensors file, holds another network, or its tensors do
 * not fit the configuration.
 *
 * @example
 * ```ts
 * import { dualEncoderNetwork, initializeNetwork, parseNetwork, readDualEncoder, serializeModel }
 *   from "@x/ddpm";
 *
 * const network = dualEncoderNetwork(parseNetwork({ _class_name: "DualEncoder" }));
 * const bytes = serializeModel({ ...initializeNetwork(network, 0), card: { data: "emoji" } });
 * console.log(readDualEncoder(bytes).network.width); // 64
 * ```
 */
export function readDualEncoder(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "the dual encoder",
): DualEncoderModel {
  const model = trainableFrom(readSafetensors(file, what), what);
  return { ...model, network: dualEncoderNetwork(model.network) };
}

/**
 * A model out of what its file holds.
 *
 * @throws {InputError} If there is no configuration among it, it is no model, or the tensors do not fit
 * it.
 */
export function modelFrom(file: Safetensors, what: string): Model {
  const model = trainableFrom(file, what);
  if ("schedule" in model) return model;
  // Which says why not.
  return { ...model, schedule: parseSchedule({}), network: noisyItemsNetwork(model.network) };
}

/**
 * A model, an autoencoder or a dual encoder out of what its file holds.
 *
 * @throws {InputError} If there is no configuration among it, or the tensors do not fit that.
 */
export function trainableFrom({ tensors, metadata }: Safetensors, what: string): Trainable {
  const {
    [FORMER_KEY]: former,
    [NETWORK_KEY]: latest,
    [SCHEDULE_KEY]: schedule,
    [AUTOENCODER_KEY]: encoder,
    ...rest
  } = metadata;
  const network = latest ?? former;
  if (network === undefined) {
    throw new InputError(
      `Cannot load ${what}: its header holds no network; for a diffusers checkpoint give its ` +
        "folder",
    );
  }
  const parsed = trainableNetwork(parseNetwork(parseJson(network, `the network of ${what}`)));
  if (!isOfNoisyItems(parsed)) {
    const parameters = parametersFrom(parsed.layout, tensors, what);
    return { network: parsed, parameters, card: readNotes(rest, what).card } as
      | AutoencoderModel
      | DualEncoderModel;
  }
  const { card, classes } = readNotes(rest, what), names = classes ?? formerClasses(parsed, card);
  const parts = encoder === undefined
    ? { own: tensors }
    : separate(tensors, parseJson(encoder, `the autoencoder of ${what}`), what);
  return assembleModel(
    parsed,
    parseSchedule(parseJson(schedule ?? "{}", `the schedule of ${what}`)),
    parts.own,
    what,
    {
      card,
      ...(names ? { classes: names } : {}),
      ..."autoencoder" in parts ? { autoencoder: parts.autoencoder } : {},
    },
  );
}

/** The tensors of a model of latents, and its autoencoder. */
function separate(
  tensors: ReadonlyMap<string, FileTensor>,
  config: unknown,
  what: string,
): { own: Map<string, FileTensor>; autoencoder: Weighted<AutoencoderNetwork> } {
  const network = autoencoderNetwork(parseNetwork(config)), own = new Map<string, FileTensor>();
  const of = new Map<string, FileTensor>();
  for (const [name, tensor] of tensors) {
    if (name.startsWith(AUTOENCODER_PLACE)) of.set(name.slice(AUTOENCODER_PLACE.length), tensor);
    else own.set(name, tensor);
  }
  const parameters = parametersFrom(network.layout, of, `the autoencoder of ${what}`);
  return { own, autoencoder: { network, parameters } };
}

/** What the header of a file says beside how it is to be read. */
type Notes = Pick<Model, "card" | "classes">;

/**
 * Reads what {@linkcode formatNotes} writes.
 *
 * @throws {InputError} If the names of classes are none.
 */
export function readNotes(
  { [CLASSES_KEY]: classes, [FORMAT_KEY]: _, ...card }: Readonly<Record<string, string>>,
  what: string,
): Notes {
  if (classes === undefined) return { card };
  const json = parseJson(classes, `the classes of ${what}`);
  return { card, classes: parseWith(z.array(z.string()), json, `classes of ${what}`) };
}

/** What is known of a model, for the header of a file. */
export const formatNotes = (
  { card, classes }: Pick<Notes, "card"> & Partial<Notes>,
): Record<string, string> => ({
  ...card,
  [FORMAT_KEY]: FORMAT,
  ...(classes ? { [CLASSES_KEY]: JSON.stringify(classes) } : {}),
});

/** Numbers for names where version 0.1.0 trained with label dropout: the last class is "none". */
function formerClasses(
  network: NoisyItemsNetwork,
  { training }: Model["card"],
): string[] | undefined {
  const isDropped = /"label_dropout":(?!0[,}])/.test(training ?? "");
  if (!isDropped || network.kind !== "denoiser") return undefined;
  const { labels } = network.conditions(network.itemShape.map((n) => n ?? 1));
  return labels?.below && Array.from({ length: labels.below - 1 }, (_, i) => String(i)) ||
    undefined;
}

function parseJson(text: string, what: string): unknown {
  try {
    return parsePythonJson(text);
  } catch (error) {
    throw new InputError(`Cannot read ${what}: ${(error as Error).message}`);
  }
}

/**
 * A model from a configuration and tensors under diffusers' names, present or past; their numbers are
 * read when they are needed.
 *
 * @throws {InputError} If a tensor is missing, superfluous or wrongly shaped.
 */
export function assembleModel(
  network: Network,
  schedule: ScheduleConfig,
  tensors: ReadonlyMap<string, FileTensor>,
  what: string,
  { card = {}, classes, scheduler, autoencoder }: Partial<
    Pick<Model, "card" | "classes" | "scheduler" | "autoencoder">
  > = {},
): Model {
  const parameters = parametersFrom(network.layout, tensors, what);
  return {
    ...{ network: noisyItemsNetwork(network), schedule, parameters, card },
    ...(classes ? { classes } : {}),
    ...(scheduler ? { scheduler } : {}),
    ...(autoencoder ? { autoencoder } : {}),
  };
}

/**
 * The model, the autoencoder or the dual encoder as the bytes of one file.
 *
 * @param dtype `F16` and `BF16` halve the file; weights keep 11 or 8 significant bits, and reading
 * gives those.
 * @throws {RangeError} If a weight is too large for the type.
 *
 * @example
 * ```ts
 * import { initializeModel, parseNetwork, serializeModel } from "@x/ddpm";
 *
 * const network = parseNetwork({ block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * console.log(serializeModel(initializeModel(network, {}, 0)).length);
 * ```
 */
export function serializeModel(
  model: Trainable,
  dtype: WeightFileDType = "F32",
): Uint8Array<ArrayBuffer> {
  return collect(encodeModel(model, dtype));
}

/**
 * What {@linkcode serializeModel} gives, tensor by tensor.
 *
 * @throws {RangeError} While its parts are made, if a weight is too large for the type.
 */
export function encodeModel(model: Trainable, dtype: WeightFileDType = "F32"): EncodedFile {
  const { network, parameters } = model;
  const autoencoder = "schedule" in model ? model.autoencoder : undefined;
  const tensors = nameTensors(network.layout, parameters, dtype);
  if (autoencoder) {
    const { network, parameters } = autoencoder;
    tensors.push(...nameTensors(network.layout, parameters, dtype, AUTOENCODER_PLACE));
  }
  return encodeSafetensors(tensors, {
    ...formatNotes(model),
    [NETWORK_KEY]: JSON.stringify(formatNetwork(network)),
    ...(autoencoder
      ? { [AUTOENCODER_KEY]: JSON.stringify(formatNetwork(autoencoder.network)) }
      : {}),
    ...("schedule" in model
      ? { [SCHEDULE_KEY]: JSON.stringify(formatSchedule(model.schedule)) }
      : {}),
  });
}
