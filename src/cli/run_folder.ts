/**
 * The folder of a training: what it was started with, where it is, and how it went.
 *
 * - `config.json`: data, network, schedule, settings
 * - `model.safetensors`: the moving average of the weights; what `sample` takes
 * - `state.safetensors`: everything that is needed to go on
 * - `log.jsonl`, `loss.svg`, `samples/`
 *
 * @module
 */

import { join } from "@std/path";
import { z } from "zod";
import { parseWith, toSnakeCase } from "../config.ts";
import { InputError } from "../errors.ts";
import { formatUNetConfig, parseUNetConfig, type UNetConfig } from "../model/config.ts";
import { type Model, serializeModel } from "../model/model.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../model/safetensors.ts";
import { formatSchedule, parseSchedule, type ScheduleConfig } from "../model/schedule.ts";
import { parseTraining, type TrainingConfig } from "../train/config.ts";
import type { StateName, TrainingState } from "../train/trainer.ts";
import { checkFolder, kindOf, makeFolder, readFile, readJson, writeWhole } from "./files.ts";
import { type ImageOptions, parseImages } from "./image_options.ts";
import { plotLoss } from "./plot.ts";

/** What a training was started with. */
export interface RunConfig {
  readonly data: string;
  readonly images: ImageOptions;
  readonly unet: UNetConfig;
  readonly scheduler: ScheduleConfig;
  readonly training: TrainingConfig;
}

/** A line of the log: means over the steps since the line before. */
export interface LogLine {
  readonly step: number;
  readonly loss: number;
  readonly grad_norm: number;
  readonly images_per_second: number;
  readonly seconds: number;
}

type Fields = Readonly<Record<string, unknown>>;

/** A configuration as it is written; what is not there has its default. */
export interface RunFields {
  readonly data?: string | undefined;
  readonly images?: Fields | undefined;
  readonly unet?: Fields | undefined;
  readonly scheduler?: Fields | undefined;
  readonly training?: Fields | undefined;
}

const section = z.record(z.string(), z.unknown()).optional();
const schema: z.ZodType<RunFields> = z.strictObject({
  ...{ data: z.string().optional(), images: section },
  ...{ unet: section, scheduler: section, training: section },
});

/**
 * Reads a configuration file, without judging its sections.
 *
 * @throws {InputError} If it cannot be read or is no such file.
 */
export async function readRunFields(path: string): Promise<RunFields> {
  return parseWith(schema, await readJson(path), path);
}

/** The configuration as it is written. */
export function formatRunConfig(config: RunConfig): Required<RunFields> {
  return {
    data: config.data,
    images: config.images,
    unet: formatUNetConfig(config.unet),
    scheduler: formatSchedule(config.scheduler),
    training: toSnakeCase(config.training),
  };
}

/** Files of a training, of which none may be there when one starts. */
const FILES = ["config.json", "model.safetensors", "state.safetensors", "log.jsonl", "loss.svg"];

/** The folder of a training. */
export class RunFolder {
  readonly path: string;
  #log: LogLine[] = [];
  #seconds = 0;

  readonly #dtype: "F32" | "F16";

  /** @param dtype How the model is written. */
  constructor(path: string, dtype: "F32" | "F16" = "F32") {
    this.path = path;
    this.#dtype = dtype;
  }

  #at(name: string): string {
    return join(this.path, name);
  }

  /** @throws {InputError} If a training is there already, or nothing can be written there. */
  async checkNew(): Promise<void> {
    for (const file of FILES) {
      if (await kindOf(this.#at(file)) === "nothing") continue;
      throw new InputError(
        file === "config.json"
          ? `${this.path} holds a training already: --resume goes on with it, another --out starts ` +
            "a new one"
          : `Cannot train into ${this.path}: it holds a ${file} already`,
      );
    }
    await checkFolder(this.path, true);
  }

  /** @throws {InputError} If no training was started here, or its configuration is damaged. */
  async readConfig(): Promise<RunConfig> {
    const path = this.#at("config.json");
    if (await kindOf(path) !== "file") {
      throw new InputError(`Cannot go on: ${this.path} holds no training`);
    }
    const { data, images, unet, scheduler, training } = await readRunFields(path);
    if (data === undefined || !unet || !scheduler || !training) {
      throw new InputError(`Cannot go on: ${path} is incomplete`);
    }
    return {
      ...{ data, images: parseImages(images ?? {}), unet: parseUNetConfig(unet) },
      ...{ scheduler: parseSchedule(scheduler), training: parseTraining(training) },
    };
  }

  /** Starts afresh. The configuration comes last: where it is, there is something to go on from. */
  async create(state: TrainingState, config: RunConfig, model: Model): Promise<void> {
    await makeFolder(this.#at("samples"));
    await this.save(state, 0, config, model);
    const text = JSON.stringify(formatRunConfig(config), null, 2) + "\n";
    await writeWhole(this.#at("config.json"), text);
  }

  /**
   * Saves everything that is needed to go on, and the model as it is.
   *
   * @param seconds How long the training took so far.
   */
  async save(
    state: TrainingState,
    seconds: number,
    config: RunConfig,
    model: Model,
  ): Promise<void> {
    const tensors = Object.entries(state.arrays).map(([name, values]) => ({
      ...{ name, values },
      shape: [values.length],
    }));
    const metadata = {
      step: String(state.step),
      seconds: seconds.toFixed(3),
      unet: JSON.stringify(architectureOf(config.unet)),
    };
    // The state is the truth; the model comes first, so that it is never missing.
    await writeWhole(this.#at("model.safetensors"), serializeModel(model, this.#dtype));
    await writeWhole(this.#at("state.safetensors"), writeSafetensors(tensors, metadata));
  }

  /**
   * Where the training was when it was saved last.
   *
   * @throws {InputError} If it was not, or the file is damaged or of another network.
   */
  async readState(config: RunConfig): Promise<TrainingState> {
    const path = this.#at("state.safetensors");
    if (await kindOf(path) !== "file") {
      throw new InputError(`Cannot go on: ${this.path} holds no state.safetensors`);
    }
    const { tensors, metadata } = readSafetensors(await readFile(path), path);
    const step = Number(metadata.step ?? NaN), seconds = Number(metadata.seconds ?? NaN);
    if (!Number.isSafeInteger(step) || step < 0 || !(seconds >= 0)) {
      throw new InputError(`Cannot go on: ${path} does not tell how far the training was`);
    }
    const saved = parseFields(metadata.unet), here = architectureOf(config.unet);
    const difference = describeDifference(saved, path, here, this.#at("config.json"));
    if (difference) {
      throw new InputError(`Cannot go on: the state is of another network: ${difference}`);
    }
    const odd = [...tensors].find(([, tensor]) => tensor.dtype !== "F32");
    if (odd) throw new InputError(`Cannot go on: ${odd[0]} in ${path} is ${odd[1].dtype}, not F32`);
    this.#seconds = seconds;
    const arrays = Object.fromEntries([...tensors].map(([name, t]) => [name, toFloat32(t)]));
    return { step, arrays: arrays as Record<StateName, Float32Array<ArrayBuffer>> };
  }

  /** Reads the log up to a step; later lines, of steps that were not saved, are dropped. */
  async readLog(step: number): Promise<void> {
    const path = this.#at("log.jsonl");
    if (await kindOf(path) !== "file") return;
    const lines = new TextDecoder().decode(await readFile(path)).split("\n");
    for (const line of lines.filter((l) => l.trim())) {
      try {
        const parsed = JSON.parse(line) as LogLine;
        if (parsed.step <= step) this.#log.push(parsed);
      } catch {
        break; // The last line was cut off by whatever ended the training.
      }
    }
    await writeWhole(path, this.#log.map((l) => JSON.stringify(l) + "\n").join(""));
  }

  /** Adds a line to the log, and draws the curve anew. */
  async log(line: LogLine): Promise<void> {
    this.#log.push(line);
    await Deno.writeTextFile(this.#at("log.jsonl"), JSON.stringify(line) + "\n", { append: true });
    await writeWhole(this.#at("loss.svg"), plotLoss(this.#log, `loss of ${this.path}`));
  }

  /** The step of the last line of the log. */
  get lastLogged(): number {
    return this.#log.at(-1)?.step ?? 0;
  }

  /** Seconds that the training took until it was saved. */
  get seconds(): number {
    return this.#seconds;
  }

  /** Writes a picture of samples. */
  async writeSamples(step: number, png: Uint8Array): Promise<void> {
    const name = `step-${String(step).padStart(7, "0")}.png`;
    await writeWhole(join(this.#at("samples"), name), png);
  }
}

/** What must agree for a state to fit a network. */
export function architectureOf(unet: UNetConfig): Fields {
  const { sample_size: _s, dropout: _d, ...rest } = formatUNetConfig(unet);
  return rest;
}

function parseFields(text: string | undefined): Fields {
  try {
    return Object(JSON.parse(text ?? "{}"));
  } catch {
    return {};
  }
}

/** "block_out_channels is [16] in A and [32] in B" for the first field of B that differs, or "". */
export function describeDifference(a: Fields, inA: string, b: Fields, inB: string): string {
  const text = (value: unknown) => JSON.stringify(value) ?? "not given";
  const field = Object.keys(b).find((key) => text(a[key]) !== text(b[key]));
  return field ? `${field} is ${text(a[field])} in ${inA} and ${text(b[field])} in ${inB}` : "";
}
