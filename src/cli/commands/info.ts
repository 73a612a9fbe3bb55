/**
 * `ddpm info`: describes a model, a picture, or this machine.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Model } from "../../model/model.ts";
import type { ItemShape } from "../../model/network.ts";
import type { Shape } from "../../shape.ts";
import { parseTraining } from "../../train/config.ts";
import { Trainer } from "../../train/trainer.ts";
import { describeExcess } from "../../gpu/describe.ts";
import { GpuDevice } from "../../gpu/wgsl/device.ts";
import { checkDeviceFlags, deviceFlags, openForCommand } from "../terminal/device.ts";
import { FoundAutoencoder } from "../run/found_autoencoder.ts";
import { FoundDualEncoder } from "../run/found_dual_encoder.ts";
import { FoundTextToImage } from "../run/found_text_to_image.ts";
import { locate, type Located } from "../run/load_model.ts";
import { UnsupportedPipeline } from "../run/model_folder.ts";
import { isState, openLocated } from "../run/open_model.ts";
import { openTextToImage } from "../run/text_to_image.ts";
import { classesOf } from "./class_flags.ts";
import {
  describeAutoencoder,
  describeDualEncoder,
  describeFiles,
  describePipeline,
  describeTextToImage,
  summarize,
} from "./model_facts.ts";
import { describePicture, isPicture } from "./picture_facts.ts";
import { samplerOfModel } from "./sampler_flags.ts";
import { type Flag, type Flags, parseFlags } from "../terminal/flags.ts";
import { print, Progress } from "../terminal/progress.ts";
import { formatBytes } from "../../units.ts";
import { readChoices, tuningFile } from "../terminal/tuning.ts";
import { software } from "../terminal/version.ts";

/** The flags of `info`. */
export const infoFlags = {
  json: { kind: "switch", help: "print JSON" },
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command. */
export async function infoCommand(args: readonly string[]): Promise<void> {
  const { flags, rest } = parseFlags(args, infoFlags);
  checkDeviceFlags(flags);
  if (rest.length > 1) {
    throw new InputError(`info takes one model or picture, not ${rest.join(" and ")}`);
  }
  const facts = !rest.length
    ? await describeMachine(flags)
    : await isPicture(rest[0])
    ? await describePicture(rest[0])
    : await describeModel(rest[0], flags);
  if (flags.json) return print(JSON.stringify(facts, null, 2));
  const width = Math.max(...Object.keys(facts).map((key) => key.length));
  for (const [key, value] of Object.entries(facts)) {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    print(`${key.padEnd(width)}  ${text}`);
  }
}

async function describeModel(
  place: string,
  flags: Flags<typeof infoFlags>,
): Promise<Record<string, unknown>> {
  const located = await locate(place);
  let model: Model;
  try {
    model = await openLocated(place, located);
  } catch (error) {
    if (error instanceof FoundAutoencoder) return await describeAutoencoder(error, located);
    if (error instanceof FoundDualEncoder) return await describeDualEncoder(error.model, located);
    return await describeOther(error, located);
  }
  const { network, schedule, card } = model, sampler = samplerOfModel(model);
  // Where the weights are from is told as whether they are a moving average.
  const { weight_source: _, ...rest } = card;
  return {
    ...await describeFiles(located, isState(located), card),
    ...summarize(model),
    ...(sampler ? { sampler: sampler.method ?? `none like ${sampler.className}` } : {}),
    missing: "nothing",
    "weights": formatBytes(4 * network.layout.count),
    "memory to train": await planTraining(model, flags),
    ...describeClasses(model),
    ...network.config,
    ...schedule,
    ...rest,
  };
}

/** Describes what is no model of one network. */
async function describeOther(error: unknown, located: Located): Promise<Record<string, unknown>> {
  if (error instanceof UnsupportedPipeline) return await describePipeline(error, located);
  if (!(error instanceof FoundTextToImage)) throw error;
  try {
    return await describeTextToImage((await openTextToImage(located))!, located);
  } catch (error) {
    if (error instanceof UnsupportedPipeline) return await describePipeline(error, located);
    throw error;
  }
}

/** Names and "none", which `--class` takes. */
function describeClasses(model: Model): Record<string, unknown> {
  const shape = model.network.itemShape.map((n) => n ?? 1), known = classesOf(model, shape);
  if (!known) return {};
  return {
    classes: model.classes ? known.names : known.names.length,
    "class none": known.none === undefined ? "no: trained without label dropout" : "yes",
  };
}

const isWhole = (shape: ItemShape): shape is Shape => shape.every((n) => n !== null);

/** The memory that training this network takes on this machine. */
async function planTraining(model: Model, flags: Flags<typeof infoFlags>): Promise<string> {
  const { network } = model, isClassifier = network.kind === "classifier";
  const training = parseTraining(isClassifier ? { objective: "classifier" } : {});
  const { itemShape: shape, multiple = 1 } = network;
  if ("encoder_hidden_states" in network.conditions(shape.map((n) => n ?? multiple))) {
    return "none: this program does not train networks that are told states of texts, but those " +
      "that read by themselves (train --captions)";
  }
  if (!isWhole(shape)) return "depends on the size of the images";
  using device = await openForCommand(flags, new Progress());
  try {
    const { bytes, excess } = Trainer.plan(device, model, { shape }, training);
    const trouble = excess ? `; ${describeExcess(excess, device.name)}` : "";
    return `${formatBytes(bytes)} in batches of ${training.batchSize}${trouble}`;
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
}

async function describeMachine(flags: Flags<typeof infoFlags>): Promise<Record<string, unknown>> {
  using device = await openForCommand(flags, new Progress());
  const facts = {
    package: software,
    deno: Deno.version.deno,
    system: `${Deno.build.os} ${Deno.build.arch}, ${navigator.hardwareConcurrency} cores`,
    device: device.kind,
    adapter: device.name,
  };
  if (!(device instanceof GpuDevice)) return facts;
  const { limits, features } = device.device, file = tuningFile();
  const choices = Object.entries(file ? await readChoices(file) : {})
    .filter(([key]) => key.startsWith(`${device.name}: `));
  return {
    ...facts,
    software: device.isSoftware ? "yes: emulated on the CPU" : "no",
    "largest buffer": formatBytes(limits.maxBufferSize),
    "largest binding": formatBytes(limits.maxStorageBufferBindingSize),
    "workgroup memory": formatBytes(limits.maxComputeWorkgroupStorageSize),
    subgroups: device.target.subgroup || "not used",
    features: [...features].sort().join(", "),
    ...(flags.json
      ? { choices: Object.fromEntries(choices) }
      : { choices: `${choices.length} kernels chosen by measuring; --json lists them` }),
  };
}
