/**
 * Models as folders that Python's diffusers loads: `unet`, `scheduler`, and `model_index.json` where
 * one of its pipelines paints by them.
 *
 * @module
 */

import { toSnakeCase } from "../config.ts";
import { makeTables } from "../diffusion/betas.ts";
import { parseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import { type EncodedFile, encodeSafetensors } from "../formats/safetensors.ts";
import { formatNotes, isDualEncoder, type Trainable } from "./model.ts";
import { nameTensors, type WeightFileDType } from "./tensors.ts";
import { formatNetwork, type Network } from "./network.ts";
import type { Weighted } from "./weights.ts";

/** A version of diffusers that knows every class and field that is written here. */
const VERSION = "0.35.1";

/** A folder to write. */
export interface DiffusersFolder {
  /** Weights, or JSON, by path. */
  readonly files: ReadonlyMap<string, EncodedFile | Readonly<Record<string, unknown>>>;
  /** What diffusers has no place for, and what it cannot do: clauses. */
  readonly notes: readonly string[];
}

/** The class of diffusers for a schedule, and the fields that it has. */
interface Scheduler {
  readonly className: string;
  readonly fields: readonly (keyof ScheduleConfig)[];
  /** The schedule in terms of the class. */
  readonly config: ScheduleConfig;
  /** Whether the pipelines of diffusers for networks without text run it. */
  readonly hasPipeline: boolean;
}

const ddpmFields: readonly (keyof ScheduleConfig)[] = [
  ...["numTrainTimesteps", "betaStart", "betaEnd", "betaSchedule", "trainedBetas"] as const,
  ...["varianceType", "clipSample", "predictionType", "thresholding"] as const,
  ...["dynamicThresholdingRatio", "clipSampleRange", "sampleMaxValue"] as const,
  ...["timestepSpacing", "stepsOffset", "rescaleBetasZeroSnr"] as const,
];
const edmFields: readonly (keyof ScheduleConfig)[] = [
  ...["sigmaMin", "sigmaMax", "sigmaData", "sigmaSchedule", "numTrainTimesteps"] as const,
  ...["predictionType", "rho", "finalSigmasType"] as const,
];

/** Schedules that `DDPMScheduler` knows by name, by what it calls them. */
const named: Partial<Record<ScheduleConfig["betaSchedule"], ScheduleConfig["betaSchedule"]>> = {
  ...{ linear: "linear", scaled_linear: "scaled_linear", quadratic: "scaled_linear" },
  ...{ squaredcos_cap_v2: "squaredcos_cap_v2", sigmoid: "sigmoid" },
};

function schedulerOf(config: ScheduleConfig): Scheduler {
  const { betaSchedule, predictionType, trainedBetas } = config;
  if (predictionType === "edm" && betaSchedule === "edm" && !trainedBetas) {
    return { className: "EDMEulerScheduler", fields: edmFields, config, hasPipeline: false };
  }
  if (predictionType === "flow_prediction" && betaSchedule === "flow" && !trainedBetas) {
    const fields = ["numTrainTimesteps", "shift"] as const;
    const className = "FlowMatchEulerDiscreteScheduler";
    return { className, fields, config, hasPipeline: false };
  }
  const isTold = trainedBetas !== null || betaSchedule !== "edm" && betaSchedule !== "flow";
  if (predictionType === "edm" || predictionType === "flow_prediction" || !isTold) {
    throw new InputError(
      `Cannot write the noise schedule for diffusers: it has none with the prediction_type ` +
        `${predictionType} and the beta_schedule ${betaSchedule}; --format safetensors keeps it`,
    );
  }
  const known = named[betaSchedule];
  const own = trainedBetas || !known
    ? { betaSchedule: "linear" as const, trainedBetas: trainedBetas ?? betasOf(config) }
    : { betaSchedule: known };
  return {
    ...{ className: "DDPMScheduler", fields: ddpmFields, hasPipeline: true },
    config: { ...config, ...own },
  };
}

/** βs as numbers, before they are rescaled. */
const betasOf = (config: ScheduleConfig): number[] => [
  ...makeTables({ ...config, rescaleBetasZeroSnr: false }).betas,
];

/** The scheduler's file, and which fields had no place in it. */
function formatScheduler({ className, fields, config }: Scheduler) {
  const standard = parseSchedule({ _class_name: className });
  const own = Object.fromEntries(
    fields.filter((field) => !recent.includes(field) || config[field] !== standard[field])
      .map((field) => [field, config[field]]),
  );
  const isEdm = config.predictionType === "edm";
  const json = {
    ...{ _class_name: className, _diffusers_version: VERSION, ...toSnakeCase(own) },
    // What EDM's classes call the only thing that their networks predict.
    ...(isEdm ? { prediction_type: "epsilon" } : {}),
  };
  const lost = Object.keys(standard).map((key) => key as keyof ScheduleConfig).filter((key) =>
    !fields.includes(key) && !ofOtherKinds.includes(key) && config[key] !== standard[key]
  );
  return { json, lost: Object.keys(toSnakeCase(Object.fromEntries(lost.map((key) => [key, 0])))) };
}

/** Fields that are newer than their classes: readers warn of what they do not know. */
const recent: readonly (keyof ScheduleConfig)[] = [
  ...["rescaleBetasZeroSnr", "sigmaSchedule", "finalSigmasType"] as const,
];

/** Fields that say nothing where the schedule is of another kind, or that its class implies. */
const ofOtherKinds: readonly (keyof ScheduleConfig)[] = [
  ...["betaStart", "betaEnd", "betaSchedule", "trainedBetas", "predictionType"] as const,
  ...["sigmaMin", "sigmaMax", "sigmaData", "sigmaSchedule", "rho", "shift"] as const,
];

/** What diffusers calls the files of a network. */
const CONFIG = "config.json", WEIGHTS = "diffusion_pytorch_model.safetensors";

/** The configuration of a network as a file of diffusers. */
function formatConfig(network: Network): Record<string, unknown> {
  const { _class_name, ...fields } = formatNetwork(network);
  return { _class_name, _diffusers_version: VERSION, ...fields };
}

/** Files of a network, in a folder. */
const filesOf = (
  { network, parameters }: Weighted,
  dtype: WeightFileDType,
  notes: Record<string, string>,
  place = "",
): [string, EncodedFile | Record<string, unknown>][] => [
  [place + CONFIG, formatConfig(network)],
  [place + WEIGHTS, encodeSafetensors(nameTensors(network.layout, parameters, dtype), notes)],
];

/**
 * A model as diffusers loads it; an autoencoder by itself, in the folder. Names of classes, for which
 * its networks have no field, are in the header of the weights.
 *
 * @throws {InputError} If diffusers has no class for the network or the schedule.
 * @throws {RangeError} While weights are made, if one is too large for the type.
 */
export function encodeDiffusers(model: Trainable, dtype: WeightFileDType): DiffusersFolder {
  const refuse = (className: string) =>
    new InputError(
      `Cannot write a ${className} for diffusers, which has no such class; --format safetensors ` +
        "writes a file that this program reads",
    );
  if (isDualEncoder(model)) throw refuse(model.network.className);
  if (!("schedule" in model)) {
    return { files: new Map(filesOf(model, dtype, formatNotes(model))), notes: [] };
  }
  const { network, schedule, classes, autoencoder } = model, { className } = network;
  if (className !== "UNet2DModel") throw refuse(className);
  const scheduler = schedulerOf(schedule), { json, lost } = formatScheduler(scheduler);
  // Only the table of classes is a part of the network that no pipeline knows.
  const hasClasses = network.config.num_class_embeds !== null ||
    network.config.class_embed_type !== null;
  const hasPipeline = scheduler.hasPipeline && !hasClasses && !autoencoder;
  return {
    files: new Map<string, EncodedFile | Record<string, unknown>>([
      ...(hasPipeline
        ? [
          ["model_index.json", {
            ...{ _class_name: "DDPMPipeline", _diffusers_version: VERSION },
            scheduler: ["diffusers", scheduler.className],
            unet: ["diffusers", className],
          }] as const,
        ]
        : []),
      ["scheduler/scheduler_config.json", json],
      ...filesOf(model, dtype, formatNotes(model), "unet/"),
      ...(autoencoder ? filesOf(autoencoder, dtype, formatNotes({ card: {} }), "vae/") : []),
    ]),
    notes: [
      ...(lost.length ? [`${scheduler.className} has no ${lost.join(", ")}`] : []),
      ...(classes ? ["names of classes are in the header of the weights only"] : []),
      ...(hasPipeline ? [] : [
        `no pipeline of diffusers ${
          hasClasses
            ? "tells a UNet2DModel its class"
            : autoencoder
            ? "paints latents by these classes"
            : `runs ${scheduler.className} without text`
        }: load unet${autoencoder ? ", vae" : ""} and scheduler by themselves`,
      ]),
    ],
  };
}
