/**
 * The folder of a training: its configuration, checkpoints, log and samples.
 *
 * - `config.json`: data, network, schedule, settings
 * - `model.safetensors`: the EMA of the weights, which `sample` loads
 * - `state.safetensors`: everything that resuming needs, with a fingerprint of the data and a
 *   checksum; older ones are `state-STEP.safetensors`
 * - `latents.safetensors`: those of all pictures, where latents are trained on
 * - `log.jsonl`, `samples/`, `report.html`
 *
 * Only the log and the report tell of time: all else is the same when the same is trained again.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";
import { encodeModel, type Trainable } from "../../model/model.ts";
import { readSafetensors } from "../../formats/safetensors.ts";
import { formatRunConfig, type RunConfig } from "../../train/run_config.ts";
import type { RestorableState } from "../../train/state.ts";
import { parseState, stateMetadata } from "../../train/state_file.ts";
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
import { type Fingerprint, formatFingerprint, parseFingerprint } from "../data/fingerprint.ts";
import { formatBytePair } from "../../units.ts";
import { renderReport, type Report } from "./report.ts";
import { readRunConfig } from "./run_config.ts";
import { LATENTS } from "./latents.ts";
import { isIntact, writeSealed } from "./state_file.ts";
import type { Task } from "./train_loop.ts";

/** Files of a training, none of which may exist when a new one starts. */
const FILES = ["model.safetensors", "state.safetensors", "log.jsonl", "report.html", LATENTS];

/** File names of the newest state and of older ones. */
const STATE = "state.safetensors", OLDER = /^state-(\d{7,})\.safetensors$/;
const olderName = (step: number) => `state-${String(step).padStart(7, "0")}.safetensors`;

/** Sample grids, and how many of them the report shows. */
const SAMPLES = /^step-(\d+)\.png$/, SHOWN_SAMPLES = 12;

/** Settings of {@linkcode RunFolder}. */
export interface FolderOptions {
  /** The data type of the model file. @default {"F32"} */
  readonly dtype?: "F32" | "F16";
  /** How many states to keep, the newest included. @default {2} */
  readonly keep?: number;
}

/** A saved state, in an open file, and the fingerprint of the data, which older states do not have. */
export interface SavedState extends Disposable {
  readonly state: RestorableState;
  readonly fingerprint: Fingerprint | undefined;
}

/** The folder of a training. Disposing of it releases its lock. */
export class RunFolder implements Disposable {
  readonly path: string;
  readonly #options: Required<FolderOptions>;
  #lock: FolderLock | undefined;
  #history = new History();
  #saved = -1;

  constructor(path: string, options: FolderOptions = {}) {
    this.path = path;
    this.#options = { dtype: "F32", keep: 2, ...options };
  }

  #at(name: string): string {
    return join(this.path, name);
  }

  /** @throws {InputError} If the folder holds a training already, or is not writable. */
  async checkNew(): Promise<void> {
    const names = await listFolder(this.path), samples = await listFolder(this.#at("samples"));
    if (names.includes("config.json")) {
      throw new InputError(
        `${this.path} holds a training already: continue it with --resume, or give another --out`,
      );
    }
    // What an earlier training left would end up among the files of this one.
    const left = [
      ...names.filter((name) => FILES.includes(name) || OLDER.test(name)),
      ...samples.filter((name) => SAMPLES.test(name)).map((name) => `samples/${name}`),
    ];
    for (const name of left) {
      // A link to a file that does not exist is a place for one.
      if (await kindOf(this.#at(name)) === "nothing") continue;
      throw new InputError(`Cannot train into ${this.path}: it holds a ${name} already`);
    }
    await checkFolder(this.path, true);
  }

  /** Whether a training was started here. */
  async holdsTraining(): Promise<boolean> {
    return await kindOf(this.#at("config.json")) === "file";
  }

  /** @throws {InputError} If no training was started here, or its configuration is damaged. */
  async readConfig(): Promise<RunConfig> {
    if (await this.holdsTraining()) return await readRunConfig(this.#at("config.json"));
    throw new InputError(`Cannot resume: ${this.path} holds no training`);
  }

  /**
   * Checks that the disk has room for what a training will write, if its free space is known.
   *
   * @param model Bytes of the model's weights; a state has four times as many.
   * @throws {InputError} If it has not.
   */
  async checkSpace(model: number): Promise<void> {
    // One state more than are kept: a new one is written before an old one is removed.
    const needed = 4 * model * (this.#options.keep + 1) + 2 * model;
    const free = await freeSpace(await nearestFolder(this.path));
    if (free === undefined || free >= needed) return;
    const [wanted, left] = formatBytePair(needed, free);
    throw new InputError(
      `Cannot train into ${this.path}: it takes ${wanted} with ${this.#options.keep} ` +
        `checkpoints, and the disk has ${left} left`,
    );
  }

  /**
   * Creates the folder if necessary, and locks it.
   *
   * @throws {InputError} If another process is training there.
   */
  async lock(): Promise<void> {
    await makeFolder(this.path);
    this.#lock = await FolderLock.take(this.path);
  }

  /**
   * Starts a new training. The configuration alone is enough to resume: without a state, the training
   * starts from the beginning.
   */
  async create(config: RunConfig): Promise<void> {
    await this.lock();
    // Another process may have started one in the meantime.
    await this.checkNew();
    await this.#lock?.sign();
    const text = JSON.stringify(formatRunConfig(config), null, 2) + "\n";
    await writeWhole(this.#at("config.json"), text);
    await makeFolder(this.#at("samples"));
  }

  /**
   * Resumes from the last saved state, or from the beginning: drops later lines of the log, and
   * temporary files of a killed process.
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
    this.#saved = saved ? step : -1;
  }

  /**
   * Saves a checkpoint: the state and the model. The previous state is kept under another name.
   *
   * @param buffers The buffers of the state.
   */
  async save(
    { step, buffers }: Pick<Trainer, "step" | "buffers">,
    { config, fingerprint }: Pick<Task, "config" | "fingerprint">,
    model: Trainable,
  ): Promise<void> {
    const file = encodeModel(model, this.#options.dtype);
    const state = Object.values(buffers).reduce((sum, { length }) => sum + 4 * length, 0);
    const needed = file.length + state, free = await freeSpace(this.path);
    if (free !== undefined && free < needed) {
      const [wanted, left] = formatBytePair(needed, free);
      throw new Error(
        `Cannot save to ${this.path}: it takes ${wanted}, and the disk has ${left} left`,
      );
    }
    await syncPath(this.#at("log.jsonl"));
    if (this.#options.keep > 1 && await kindOf(this.#at(STATE)) === "file") {
      await linkFile(this.#at(STATE), this.#at(olderName(this.#saved)));
    }
    // Resuming needs the state; the model is written first, so that it is never missing.
    await writeWhole(this.#at("model.safetensors"), async (to) => {
      for (const part of file.parts) await writeAll(to, part);
    });
    await writeSealed(this.#at(STATE), buffers, {
      ...stateMetadata(step, config.network),
      pictures: formatFingerprint(fingerprint),
    });
    this.#saved = step;
    // States of later steps are from before the training was taken back to an older one.
    const older = (await this.#older()).filter((other) => other < step);
    const kept = older.slice(0, this.#options.keep - 1);
    for (const other of await this.#older()) {
      if (!kept.includes(other)) await Deno.remove(this.#at(olderName(other)));
    }
  }

  /** Steps of the older states, the latest first. */
  async #older(): Promise<number[]> {
    return (await listFolder(this.path)).flatMap((name) => OLDER.exec(name)?.[1] ?? []).map(Number)
      .sort((a, b) => b - a);
  }

  /**
   * The last saved state; `undefined` if there is none yet.
   *
   * @throws {InputError} If the file is damaged or of another network; the message names an older
   * one that is usable.
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
          `${error.message}. ${older.path}, of step ${older.saved.state.step}, is intact: delete ` +
            `${path}, and --resume continues from there`,
        );
      }
    }
    const older = await this.#findOlder(config);
    if (!older && (await this.#readLog()).length) {
      throw new InputError(`Cannot resume: ${this.path} holds no ${STATE}`);
    }
    return older?.saved;
  }

  /** The latest older state that is intact. */
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
    const found = readSafetensors(bytes, path);
    if (!isIntact(bytes)) {
      throw new InputError(`Cannot resume: ${path} is damaged, its checksum does not match`);
    }
    const state = parseState(found, path, config.network, this.#at("config.json"));
    const file = stack.move();
    return {
      state,
      fingerprint: parseFingerprint(found.metadata.pictures),
      [Symbol.dispose]: () => file.dispose(),
    };
  }

  /** The lines of the log, up to one that was cut off when the training was killed. */
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

  /** Appends a line to the log. */
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

  /** The step of the last checkpoint; -1 before the first. */
  get lastSaved(): number {
    return this.#saved;
  }

  /** Training time in seconds, up to the last line of the log. */
  get seconds(): number {
    return this.#history.last?.seconds ?? 0;
  }

  /** Writes a sample grid. */
  async writeSamples(step: number, png: Uint8Array): Promise<void> {
    const name = `step-${String(step).padStart(7, "0")}.png`;
    await writeWhole(join(this.#at("samples"), name), png);
  }

  /** Writes the report; log and samples are those of the folder. */
  async writeReport(report: Omit<Report, "history" | "samples" | "title">): Promise<void> {
    const names = (await listFolder(this.#at("samples"))).filter((name) => SAMPLES.test(name));
    const count = Math.min(names.length, SHOWN_SAMPLES);
    // The first, the last, and evenly spaced ones in between.
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

  /** Releases the lock. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
  }
}
