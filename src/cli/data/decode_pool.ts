/**
 * Batches of image files, prefetched by workers.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Batch, Batches, BatchPlan } from "../../data/batches.ts";
import type { Dataset } from "../../data/dataset.ts";
import { centered, describe, makeBatch, type Preparation } from "../../data/pictures.ts";
import { fit, writeImage } from "../../data/raster.ts";
import type { DecodeJob, DecodeResult, DecoderSetup, Wanted } from "./decode_worker.ts";
import { type ImageFiles, ImageReader } from "./image_files.ts";
import { makeCache, type SharedCache } from "./pixel_cache.ts";

/** How image files are read. */
export interface DecodeOptions {
  /** Number of decoding threads. */
  readonly workers: number;
  /** Size of the cache of decoded pixels in bytes; 0 for none. */
  readonly cacheBytes: number;
  /** How many files may be unreadable, as a number and as the user gave it. */
  readonly maxBad: number;
  readonly maxBadText: string;
  /** Called once for each unreadable file. */
  onBad(message: string): void;
}

/** The default number of decoding threads: half the cores; training uses the other half. */
export const defaultWorkers = (): number =>
  Math.min(8, Math.max(1, (navigator.hardwareConcurrency ?? 2) >> 1));

/** Image files as a data set. */
export function decodedDataset(
  files: ImageFiles,
  preparation: Preparation,
  options: DecodeOptions,
): Dataset {
  // Resuming and a second look at the set see the pixels and the bad files that the first one saw.
  const cache = options.cacheBytes ? makeCache(files.count, options.cacheBytes) : undefined;
  const bad = new BadFiles(files, options);
  return {
    ...describe(files, preparation),
    async read(index, out, offset) {
      using reader = new ImageReader(files.place);
      const good = await bad.nextGood(
        index,
        async (index) => await reader.picture(index, files.files[index]),
      );
      const fitted = fit(good, preparation, preparation.crop);
      writeImage(fitted, preparation, centered(fitted, preparation), out, offset);
    },
    batches: (plan) => new DecodePool(files, preparation, options.workers, plan, bad, cache),
  };
}

/** Unreadable files. The next readable one takes the place of each, whenever it is found. */
class BadFiles {
  readonly #files: ImageFiles;
  readonly #options: DecodeOptions;
  readonly #bad = new Set<number>();

  constructor(files: ImageFiles, options: DecodeOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** @throws {InputError} If there are too many by now. */
  add(index: number, why: string): void {
    if (this.#bad.has(index)) return;
    this.#bad.add(index);
    const { name, count } = this.#files, { maxBad, maxBadText, onBad } = this.#options;
    if (this.#bad.size > maxBad) {
      throw new InputError(
        `Cannot use ${name}: ${this.#bad.size} of ${count} images are bad, but --max-bad is ` +
          `${maxBadText}; the last one: ${why}`,
      );
    }
    if (this.#bad.size === count) throw new InputError(`Cannot use ${name}: ${why}`);
    onBad(`left out   ${why} (${this.#bad.size} of at most ${maxBad})`);
  }

  /** Whether an image is known to be bad. */
  has(index: number): boolean {
    return this.#bad.has(index);
  }

  /** The result of `get` for the image, or for the next one if it throws an InputError. */
  async nextGood<T>(index: number, get: (index: number) => Promise<T>): Promise<T> {
    for (;; index = (index + 1) % this.#files.count) {
      if (this.#bad.has(index)) continue;
      try {
        return await get(index);
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        this.add(index, error.message);
      }
    }
  }
}

/** A batch in preparation. */
interface Pending {
  readonly done: Promise<Batch>;
  readonly resolve: (batch: Batch) => void;
  readonly reject: (error: unknown) => void;
  readonly batch: Batch;
  /** For each job in progress, which images of the batch it makes. */
  readonly jobs: Map<number, { readonly slots: readonly number[]; readonly wanted: Wanted[] }>;
}

class DecodePool implements Batches {
  readonly #files: ImageFiles;
  readonly #plan: BatchPlan;
  readonly #preparation: Preparation;
  readonly #bad: BadFiles;
  readonly #setup: DecoderSetup;
  readonly #count: number;
  #workers: Worker[] | undefined;
  /** By the position at which they start. */
  readonly #pending = new Map<number, Pending>();
  #nextJob = 0;

  constructor(
    files: ImageFiles,
    preparation: Preparation,
    workers: number,
    plan: BatchPlan,
    bad: BadFiles,
    cache: SharedCache | undefined,
  ) {
    this.#files = files;
    this.#plan = plan;
    this.#preparation = preparation;
    this.#bad = bad;
    this.#count = workers;
    this.#setup = {
      ...{ place: files.place, preparation, seed: plan.seed },
      ...(cache ? { cache } : {}),
    };
  }

  async at(place: number): Promise<Batch> {
    this.#workers ??= Array.from({ length: this.#count }, () => this.#start());
    // Batches that are no longer needed, after a training was restored to another step.
    const { size } = this.#plan, last = place + this.#ahead * size;
    for (const start of [...this.#pending.keys()]) {
      if (start < place || start > last) this.#pending.delete(start);
    }
    for (let start = place; start <= last; start += size) {
      if (!this.#pending.has(start)) this.#pending.set(start, this.#order(start));
    }
    const { done } = this.#pending.get(place)!;
    const batch = await done;
    this.#pending.delete(place);
    return batch;
  }

  /** Batches to prefetch: a few per thread, so that none waits while a step is computed. */
  get #ahead(): number {
    return 2 * this.#count;
  }

  #start(): Worker {
    const worker = new Worker(new URL("./decode_worker.ts", import.meta.url), { type: "module" });
    worker.postMessage(this.#setup);
    worker.onmessage = ({ data }: MessageEvent<DecodeResult>) => this.#take(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const error = new Error(`A worker that decodes images failed: ${event.message}`);
      for (const { reject } of this.#pending.values()) reject(error);
    };
    return worker;
  }

  #order(start: number): Pending {
    const { promise: done, resolve, reject } = Promise.withResolvers<Batch>();
    // Whoever asks for the batch is told of the error; that may be never.
    done.catch(() => {});
    const batch = makeBatch(this.#preparation, this.#plan.size);
    const pending: Pending = { done, resolve, reject, batch, jobs: new Map() };
    const wanted = Array.from({ length: this.#plan.size }, (_, i) => this.#want(start + i));
    this.#post(pending, wanted.map((_, i) => i), wanted);
    return pending;
  }

  /** The image at a place, or at the first place after it that is not known to be bad. */
  #want(place: number): Wanted {
    let from = place;
    while (this.#bad.has(this.#plan.imageAt(from))) from++;
    const index = this.#plan.imageAt(from);
    return { index, file: this.#files.files[index], place };
  }

  #post(pending: Pending, slots: readonly number[], wanted: Wanted[]): void {
    const id = this.#nextJob++, job: DecodeJob = { id, wanted };
    pending.jobs.set(id, { slots, wanted });
    this.#workers![id % this.#count].postMessage(job);
  }

  /** Puts the images of a job into their batch, and asks for others where they are bad. */
  #take({ id, images, bad }: DecodeResult): void {
    const pending = [...this.#pending.values()].find(({ jobs }) => jobs.has(id));
    if (!pending) return;
    const { batch, jobs } = pending, { slots, wanted } = jobs.get(id)!;
    jobs.delete(id);
    const each = images.length / slots.length, isBad = new Set(bad.map(({ at }) => at));
    slots.forEach((slot, at) => {
      if (isBad.has(at)) return;
      batch.images.set(images.subarray(at * each, (at + 1) * each), slot * each);
      const { index } = wanted[at];
      batch.labels[slot] = this.#files.labels?.[index] ?? 0;
      batch.indices[slot] = index;
    });
    if (!bad.length) return pending.resolve(batch);
    try {
      for (const { at, why } of bad) this.#bad.add(wanted[at].index, why);
    } catch (error) {
      for (const { reject } of this.#pending.values()) reject(error);
      return;
    }
    const others = bad.map(({ at }) => this.#want(wanted[at].place));
    this.#post(pending, bad.map(({ at }) => slots[at]), others);
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers ?? []) worker.terminate();
    this.#workers = undefined;
    for (const { reject } of this.#pending.values()) reject(new Error("The training has ended"));
    this.#pending.clear();
  }
}
