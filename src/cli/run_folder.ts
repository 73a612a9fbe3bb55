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
import { parseTraining } from "../train/trainer.ts";
import type { StateName, TrainingConfig, TrainingState } from "../train/trainer.ts";
import { kindOf, makeFolder, readFile, readJson, writeWhole } from "./files.ts";
import { plotLoss } from "./plot.ts";

/** What a training was started with. */
export interface RunConfig {
  readonly data: string;
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

const schema = z.strictObject({
  data: z.string().optional(),
  unet: z.unknown().optional(),
  scheduler: z.unknown().optional(),
  training: z.unknown().optional(),
});

/**
 * Reads a configuration file; what it does not mention is `undefined`.
 *
 * @throws {InputError} If it cannot be read or makes no sense.
 */
export async function readRunConfig(path: string): Promise<Partial<RunConfig>> {
  const { data, unet, scheduler, training } = parseWith(schema, await readJson(path), path);
  return {
    ...(data === undefined ? {} : { data }),
    ...(unet === undefined ? {} : { unet: parseUNetConfig(unet) }),
    ...(scheduler === undefined ? {} : { scheduler: parseSchedule(scheduler) }),
    ...(training === undefined ? {} : { training: parseTraining(training) }),
  };
}

function formatRunConfig({ data, unet, scheduler, training }: RunConfig): string {
  const fields = {
    data,
    unet: formatUNetConfig(unet),
    scheduler: formatSchedule(scheduler),
    training: toSnakeCase(training),
  };
  return JSON.stringify(fields, null, 2) + "\n";
}

/** The folder of a training. */
export class RunFolder {
  readonly path: string;
  #log: LogLine[] = [];

  constructor(path: string) {
    this.path = path;
  }

  #at(name: string): string {
    return join(this.path, name);
  }

  /** Whether a training was started here. */
  async exists(): Promise<boolean> {
    return await kindOf(this.#at("config.json")) === "file";
  }

  /** @throws {InputError} If no training was started here, or its configuration is damaged. */
  async readConfig(): Promise<RunConfig> {
    const { data, unet, scheduler, training } = await readRunConfig(this.#at("config.json"));
    if (data === undefined || !unet || !scheduler || !training) {
      throw new InputError(`Cannot go on: ${this.#at("config.json")} is incomplete`);
    }
    return { data, unet, scheduler, training };
  }

  /** Starts afresh. */
  async create(config: RunConfig): Promise<void> {
    await makeFolder(this.#at("samples"));
    await writeWhole(this.#at("config.json"), formatRunConfig(config));
  }

  /** Saves everything that is needed to go on, and the model as it is. */
  async save(state: TrainingState, config: RunConfig, model: Model): Promise<void> {
    const tensors = Object.entries(state.arrays).map(([name, values]) => ({
      ...{ name, values },
      shape: [values.length],
    }));
    const metadata = { step: String(state.step), unet: architectureOf(config.unet) };
    // The state is the truth; the model comes first, so that it is never missing.
    await writeWhole(this.#at("model.safetensors"), serializeModel(model));
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
    const step = Number(metadata.step);
    if (!Number.isSafeInteger(step)) {
      throw new InputError(`Cannot go on: ${path} does not tell its step`);
    }
    if (metadata.unet !== architectureOf(config.unet)) {
      throw new InputError(
        `Cannot go on: ${path} is of another network than the configuration` +
          describeDifference(metadata.unet, architectureOf(config.unet)),
      );
    }
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

  /** Seconds that the training took so far. */
  get seconds(): number {
    return this.#log.at(-1)?.seconds ?? 0;
  }

  /** Writes a picture of samples. */
  async writeSamples(step: number, png: Uint8Array): Promise<void> {
    const name = `step-${String(step).padStart(7, "0")}.png`;
    await writeWhole(join(this.#at("samples"), name), png);
  }
}

/** What must agree for a state to fit a network, as text. */
const architectureOf = (unet: UNetConfig): string => {
  const { sample_size: _s, dropout: _d, ...rest } = formatUNetConfig(unet);
  return JSON.stringify(rest);
};

/** ": block_out_channels is [16] there and [32] here", for the first field that differs. */
function describeDifference(there: string | undefined, here: string): string {
  if (there === undefined) return "";
  const [a, b] = [there, here].map((text) => JSON.parse(text) as Record<string, unknown>);
  const text = (value: unknown) => JSON.stringify(value);
  const field = Object.keys(b).find((key) => text(a[key]) !== text(b[key]));
  return field ? `: ${field} is ${text(a[field])} there and ${text(b[field])} here` : "";
}
