/**
 * All jobs: those that wait, in turns by their owners, the one that runs, and results for a while.
 *
 * @module
 */

import { pictureSize, type Samples } from "../../sample/options.ts";
import { makeGrid, makePicture } from "../../sample/pixels.ts";
import { encodePng } from "../media/picture_files.ts";
import type { Engine } from "./engine.ts";
import { FairQueue } from "./fair_queue.ts";
import { HttpError, messageOf } from "./http.ts";
import { Job, type Patience } from "./job.ts";
import type { Plan } from "./plan.ts";
import type { Preview } from "./schemas.ts";

/** Results that are kept, and their bytes together. */
const KEPT = 256, KEPT_BYTES = 256 * 2 ** 20;
/** The longest side of a preview, all pictures together. */
const PREVIEW_SIDE = 256;
/** Seconds after which to try again where nothing is known of how long jobs take. */
const USUAL_SECONDS = 2;

/** Settings of {@linkcode Jobs}. */
export interface JobsOptions {
  /** How many may wait. */
  readonly queue: number;
  readonly patience: Patience;
}

/** Takes jobs and does them, one after the other. */
export class Jobs implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #options: JobsOptions;
  readonly #queue = new FairQueue<Job>();
  readonly #jobs = new Map<string, Job>();
  #running: Job | undefined;
  #work: Promise<void> | undefined;
  #isClosed = false;
  /** How long the last job took. */
  #seconds = USUAL_SECONDS;

  constructor(engine: Engine, options: JobsOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /** How many wait. */
  get queued(): number {
    return this.#queue.size;
  }

  /** What is being computed. */
  get running(): Job | undefined {
    return this.#running;
  }

  /** A job by its id, which is only known to those who were told. */
  get(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  /**
   * Takes a job.
   *
   * @throws {HttpError} If too many wait, or too many of this owner.
   */
  add(owner: string, plan: Plan): Job {
    this.checkRoom(owner);
    const job = new Job(owner, plan, this.#options.patience);
    this.#jobs.set(job.id, job);
    this.#queue.push(owner, job);
    job.signal.addEventListener("abort", () => {
      this.#queue.remove(job);
      if (job !== this.#running) job.tell({ state: "cancelled" });
      this.#tellPositions();
    });
    this.#tellPositions();
    this.#work ??= this.#doAll();
    return job;
  }

  /** @throws {HttpError} If there is no room for a job. */
  checkRoom(owner: string): void {
    const { queue } = this.#options, own = this.#queue.countOf(owner);
    if (this.#isClosed) throw new HttpError(503, "The server is about to end");
    const isFull = this.#queue.size >= queue, share = Math.ceil(queue / 4);
    if (!isFull && own < share) return;
    const wait = Math.ceil(this.#seconds * (isFull ? queue : own));
    throw new HttpError(
      429,
      isFull ? `${queue} jobs wait already` : `${own} of your jobs wait already`,
      { "Retry-After": String(Math.min(600, Math.max(1, wait))) },
    );
  }

  #tellPositions(): void {
    let position = 0;
    for (const job of this.#queue) {
      position++;
      if (job.state.position !== position) job.tell({ state: "queued", position });
    }
  }

  async #doAll(): Promise<void> {
    // What is asked for in one turn of the event loop is put in order first.
    await Promise.resolve();
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) {
      this.#running = job;
      this.#tellPositions();
      const began = performance.now();
      try {
        job.tell({ state: "running" });
        await this.#do(job, job.plan!);
      } catch (error) {
        job.tell({ state: "failed", detail: messageOf(error) });
      }
      this.#running = undefined;
      this.#seconds = (performance.now() - began) / 1000;
      this.#forget();
    }
    // In the same turn in which nothing was left: what comes later begins anew.
    this.#work = undefined;
  }

  async #do(job: Job, plan: Plan): Promise<void> {
    const run = this.#engine.run(plan, job.signal);
    let next = await run.next(), batch = 0;
    for (; !next.done; next = await run.next()) {
      const { index, step, steps, sample } = next.value;
      batch ||= sample.count;
      const progress = {
        step: Math.floor(index / batch) * steps + step,
        steps: Math.ceil(plan.count / batch) * steps,
      };
      const preview = job.isWatched ? await drawPreview(sample, index) : undefined;
      job.tell({ state: "running", ...progress }, preview);
    }
    if (job.signal.aborted) return job.tell({ state: "cancelled" });
    const images: Uint8Array[] = [];
    for (let i = 0; i < next.value.count; i++) {
      const picture = makePicture(next.value, i);
      images.push(await encodePng(picture, plan.provenance(i), plan.parameters?.(i)));
    }
    job.images = images;
    job.tell({ state: "done", images: images.length });
  }

  /** Forgets the oldest results. */
  #forget(): void {
    const over = [...this.#jobs.values()].filter(({ isOver }) => isOver);
    let bytes = over.reduce((n, { bytes }) => n + bytes, 0), count = over.length;
    for (const job of over.slice(0, -1)) {
      if (count <= KEPT && bytes <= KEPT_BYTES) return;
      this.#jobs.delete(job.id);
      bytes -= job.bytes;
      count--;
    }
  }

  /** Cancels everything, and takes nothing any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const job of this.#jobs.values()) if (!job.isOver) job.cancel();
    await this.#work;
  }
}

/** Pictures side by side, small. */
async function drawPreview(sample: Samples, first: number): Promise<Preview> {
  const { count } = sample, { height, width } = pictureSize(sample);
  const columns = Math.ceil(Math.sqrt(count));
  const every = Math.ceil(columns * Math.max(height, width) / PREVIEW_SIDE);
  const png = await encodePng(makeGrid(thinned(sample, every), 1, 0, columns), {});
  return { png: new Uint8Array(png).toBase64(), columns, first, count };
}

/** Every so many-th pixel. */
function thinned(samples: Samples, every: number): Samples {
  if (every === 1) return samples;
  const { count } = samples, { height, width, channels } = pictureSize(samples);
  const [rows, columns] = [height, width].map((side) => Math.ceil(side / every));
  const data = new Float32Array(count * rows * columns * channels);
  for (let i = 0, to = 0; i < count; i++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const at = ((i * height + y * every) * width + x * every) * channels;
        for (let c = 0; c < channels; c++) data[to++] = samples.data[at + c];
      }
    }
  }
  return { count, shape: [rows, columns, channels], data };
}
