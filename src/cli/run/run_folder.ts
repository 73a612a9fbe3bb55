/**
 * The folder of a training: what it was started with, where it is, and how it went.
 *
 * - `config.json`: data, network, schedule, settings
 * - `model.safetensors`: the moving average of the weights; what `sample` takes
 * - `state.safetensors`: everything that is needed to go on, with a checksum; and `state-STEP`, the
 *   ones before it
 * - `log.jsonl`, `samples/`, `report.html`
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";
import { encodeModel, type Model } from "../../model/model.ts";
import { fromFormerLayout } from "../../model/parameters.ts";
import { decodeElements } from "../../formats/elements.ts";
import { readSafetensors, type StoredTensor, toFloat32 } from "../../formats/safetensors.ts";
import { sizeOf } from "../../shape.ts";
import type { RestorableState, StateReader } from "../../train/state.ts";
import type { Trainer } from "../../train/trainer.ts";
import {
  appendText,
  checkFolder,
  FileBytes,
  freeSpace,
  kindOf,
  linkFile,
  listFolder,
  makeFolder,
  nearestFolder,
  readFile,
  removeTemporary,
  syncPath,
  writeAll,
  writeWhole,
} from "../terminal/files.ts";
import { History, type LogLine } from "./training_log.ts";
import { FolderLock } from "./lock.ts";
import { formatBytes } from "../terminal/progress.ts";
import { renderReport, type Report } from "./report.ts";
import {
  architectureOf,
  describeDifference,
  formatRunConfig,
  parseFields,
  readRunConfig,
  type RunConfig,
} from "./run_config.ts";
import { isIntact, writeSealed } from "./state_file.ts";

/** Files of a training, of which none may be there when one starts. */
const FILES = ["config.json", "model.safetensors", "state.safetensors", "log.jsonl"];

/** The newest state, and the names of older ones. */
const STATE = "state.safetensors", OLDER = /^state-(\d{7,})\.safetensors$/;
const olderName = (step: number) => `state-${String(step).padStart(7, "0")}.safetensors`;

/** How parameters lie in a state; one that does not tell has them as the first states did. */
const LAYOUT = "2", FLAT = new Set(["parameters", "moment1", "moment2", "ema"]);

/** Pictures of samples, and how many of them a report shows. */
const SAMPLES = /^step-(\d+)\.png$/, SHOWN_SAMPLES = 12;

/** Settings of {@linkcode RunFolder}. */
export interface FolderOptions {
  /** How the model is written. @default {"F32"} */
  readonly dtype?: "F32" | "F16";
  /** How many states are kept, the newest included. @default {2} */
  readonly keep?: number;
}

/** A state as it was saved, in an open file, and how long the training took until then. */
export interface SavedState extends Disposable {
  readonly state: RestorableState;
  readonly seconds: number;
}

/** The numbers of an array of 32-bit floats. */
const readerOf = ({ shape, read }: StoredTensor): StateReader => ({
  length: sizeOf(shape),
  read: (offset, length) => decodeElements("F32", read(4 * offset, 4 * (offset + length))),
});

/** The folder of a training. Disposing of it lets other processes write to it. */
export class RunFolder implements Disposable {
  readonly path: string;
  readonly #options: Required<FolderOptions>;
  #lock: FolderLock | undefined;
  #history = new History();
  #seconds = 0;
  #saved = -1;

  constructor(path: string, options: FolderOptions = {}) {
    this.path = path;
    this.#options = { dtype: "F32", keep: 2, ...options };
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
    return await readRunConfig(path);
  }

  /**
   * Checks, where the system tells, that the disk has room for what a training will write.
   *
   * @param model Bytes of the model's weights; a state has four times as many.
   * @throws {InputError} If it has not.
   */
  async checkSpace(model: number): Promise<void> {
    // One state more than are kept, since a file is written before another one goes.
    const needed = 4 * model * (this.#options.keep + 1) + 2 * model;
    const free = await freeSpace(await nearestFolder(this.path));
    if (free === undefined || free >= needed) return;
    throw new InputError(
      `Cannot train into ${this.path}: it takes ${
        formatBytes(needed)
      } with ${this.#options.keep} ` +
        `checkpoints, and the disk has ${formatBytes(free)} left`,
    );
  }

  /**
   * Makes the folder if need be, and keeps other processes from writing to it.
   *
   * @throws {InputError} If another one trains there.
   */
  async lock(): Promise<void> {
    await makeFolder(this.path);
    this.#lock = await FolderLock.take(this.path);
  }

  /**
   * Starts afresh. The configuration alone is enough to go on: where there is nothing else, the
   * training starts from the beginning.
   */
  async create(config: RunConfig): Promise<void> {
    await this.lock();
    // Another process may have been here since.
    await this.checkNew();
    await this.#lock?.sign();
    const text = JSON.stringify(formatRunConfig(config), null, 2) + "\n";
    await writeWhole(this.#at("config.json"), text);
    await makeFolder(this.#at("samples"));
  }

  /**
   * Goes on where a training was saved last, or from the beginning: drops what was logged since, and
   * what a killed process left.
   */
  async goOn(saved: SavedState | undefined): Promise<void> {
    const step = saved?.state.step ?? 0;
    await this.#lock?.sign();
    await makeFolder(this.#at("samples"));
    for (const folder of [this.path, this.#at("samples")]) await removeTemporary(folder);
    const lines = (await this.#readLog()).filter((line) => line.step <= step);
    this.#history = new History();
    for (const line of lines) this.#history.add(line);
    const text = lines.map((line) => JSON.stringify(line) + "\n").join("");
    await writeWhole(this.#at("log.jsonl"), text);
    this.#seconds = saved?.seconds ?? 0;
    this.#saved = saved ? step : -1;
  }

  /**
   * Saves everything that is needed to go on, and the model as it is. The state before it is kept
   * under another name.
   *
   * @param buffers What the state consists of.
   * @param seconds How long the training took so far.
   */
  async save(
    { step, buffers }: Pick<Trainer, "step" | "buffers">,
    seconds: number,
    config: RunConfig,
    model: Model,
  ): Promise<void> {
    const file = encodeModel(model, this.#options.dtype);
    const state = Object.values(buffers).reduce((sum, { length }) => sum + 4 * length, 0);
    const needed = file.length + state, free = await freeSpace(this.path);
    if (free !== undefined && free < needed) {
      throw new Error(
        `Cannot save to ${this.path}: it takes ${formatBytes(needed)}, and the disk has ` +
          `${formatBytes(free)} left`,
      );
    }
    await syncPath(this.#at("log.jsonl"));
    if (this.#options.keep > 1 && await kindOf(this.#at(STATE)) === "file") {
      await linkFile(this.#at(STATE), this.#at(olderName(this.#saved)));
    }
    // The state is the truth; the model comes first, so that it is never missing.
    await writeWhole(this.#at("model.safetensors"), async (to) => {
      for (const part of file.parts) await writeAll(to, part);
    });
    await writeSealed(this.#at(STATE), buffers, {
      step: String(step),
      seconds: seconds.toFixed(3),
      network: JSON.stringify(architectureOf(config.network)),
      layout: LAYOUT,
    });
    this.#saved = step;
    this.#seconds = seconds;
    // Those of later steps are of a time that was gone back from.
    const older = (await this.#older()).filter((other) => other < step);
    const kept = older.slice(0, this.#options.keep - 1);
    for (const other of await this.#older()) {
      if (!kept.includes(other)) await Deno.remove(this.#at(olderName(other)));
    }
  }

  /** Steps of the states before the newest one, the latest first. */
  async #older(): Promise<number[]> {
    return (await listFolder(this.path)).flatMap((name) => OLDER.exec(name)?.[1] ?? []).map(Number)
      .sort((a, b) => b - a);
  }

  /**
   * Where the training was when it was saved last; `undefined` if it ended before that.
   *
   * @throws {InputError} If the file is damaged or of another network; it names an older one that is
   * not.
   */
  async readState(config: RunConfig): Promise<SavedState | undefined> {
    const path = this.#at(STATE);
    if (await kindOf(path) === "file") {
      try {
        return this.#readState(path, config);
      } catch (error) {
        const older = error instanceof InputError && await this.#findOlder(config);
        if (!older) throw error;
        using _ = older.saved;
        throw new InputError(
          `${error.message}. ${older.path}, of step ${older.saved.state.step}, is whole: delete ` +
            `${path}, and --resume goes on from there`,
        );
      }
    }
    const older = await this.#findOlder(config);
    if (!older && (await this.#readLog()).length) {
      throw new InputError(`Cannot go on: ${this.path} holds no ${STATE}`);
    }
    return older?.saved;
  }

  /** The latest of the older states that is whole. */
  async #findOlder(config: RunConfig): Promise<{ path: string; saved: SavedState } | undefined> {
    for (const step of await this.#older()) {
      const path = this.#at(olderName(step));
      try {
        return { path, saved: this.#readState(path, config) };
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
      }
    }
  }

  #readState(path: string, config: RunConfig): SavedState {
    using stack = new DisposableStack();
    const bytes = stack.use(new FileBytes(path));
    const { tensors, metadata } = readSafetensors(bytes, path);
    if (!isIntact(bytes)) {
      throw new InputError(`Cannot go on: ${path} is damaged, its checksum does not match`);
    }
    const step = Number(metadata.step ?? NaN), seconds = Number(metadata.seconds ?? NaN);
    if (!Number.isSafeInteger(step) || step < 0 || !(seconds >= 0)) {
      throw new InputError(`Cannot go on: ${path} does not tell how far the training was`);
    }
    const saved = parseFields(metadata.network ?? metadata.unet);
    const here = architectureOf(config.network);
    const difference = describeDifference(saved, path, here, this.#at("config.json"));
    if (difference) {
      throw new InputError(`Cannot go on: the state is of another network: ${difference}`);
    }
    const odd = [...tensors].find(([, tensor]) => tensor.dtype !== "F32");
    if (odd) throw new InputError(`Cannot go on: ${odd[0]} in ${path} is ${odd[1].dtype}, not F32`);
    if (![undefined, LAYOUT].includes(metadata.layout)) {
      throw new InputError(
        `Cannot go on: ${path} has its parameters in layout ${metadata.layout}, but this version ` +
          `knows ${LAYOUT}; use the version that wrote it, or a later one`,
      );
    }
    const layout = metadata.layout === LAYOUT ? undefined : config.network.layout;
    const arrays = Object.fromEntries(
      [...tensors].map(([name, tensor]) =>
        layout && FLAT.has(name)
          ? [name, fromFormerLayout(layout, toFloat32(tensor))]
          : [name, readerOf(tensor)]
      ),
    );
    const file = stack.move();
    return { state: { step, arrays }, seconds, [Symbol.dispose]: () => file.dispose() };
  }

  /** The lines of the log, up to one that was cut off by whatever ended the training. */
  async #readLog(): Promise<LogLine[]> {
    const path = this.#at("log.jsonl"), found: LogLine[] = [];
    if (await kindOf(path) !== "file") return found;
    const lines = new TextDecoder().decode(await readFile(path)).split("\n");
    for (const line of lines.filter((l) => l.trim())) {
      try {
        found.push(JSON.parse(line) as LogLine);
      } catch {
        break;
      }
    }
    return found;
  }

  /** Adds a line to the log. */
  async log(line: LogLine): Promise<void> {
    this.#history.add(line);
    await appendText(this.#at("log.jsonl"), JSON.stringify(line) + "\n");
  }

  /** The first line of the log. */
  get firstLine(): LogLine | undefined {
    return this.#history.first;
  }

  /** The step of the last line of the log. */
  get lastLogged(): number {
    return this.#history.last?.step ?? 0;
  }

  /** The step that was saved last; -1 before the first. */
  get lastSaved(): number {
    return this.#saved;
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

  /** Writes the report, of which the folder knows the log and the samples. */
  async writeReport(report: Omit<Report, "history" | "samples" | "title">): Promise<void> {
    const names = (await listFolder(this.#at("samples"))).filter((name) => SAMPLES.test(name));
    const count = Math.min(names.length, SHOWN_SAMPLES);
    // The first, the last, and some in between.
    const shown = Array.from(
      { length: count },
      (_, i) => names[Math.round(i * (names.length - 1) / Math.max(1, count - 1))],
    );
    const samples = await Promise.all(shown.map(async (name) => ({
      step: Number(SAMPLES.exec(name)![1]),
      png: await readFile(join(this.#at("samples"), name)),
    })));
    const page = renderReport({ ...report, title: this.path, history: this.#history, samples });
    await writeWhole(this.#at("report.html"), page);
  }

  /** Lets other processes write to the folder. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
  }
}
