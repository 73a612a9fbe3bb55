/**
 * All jobs: those that wait, in turns by their owners, the one that runs, and results for a while.
 *
 * @module
 */

import type { Painted, PaintStep } from "./compute.ts";
import { FairQueue } from "./fair_queue.ts";
import { HttpError, messageOf } from "./http.ts";
import { Job, type Patience } from "./job.ts";
import type { JobRequest } from "./schemas.ts";

/** Results that are kept, and their bytes together. */
const KEPT = 256, KEPT_BYTES = 256 * 2 ** 20;
/** Seconds after which to try again where nothing is known of how long jobs take. */
const USUAL_SECONDS = 2;

/** Settings of {@linkcode Jobs}. */
export interface JobsOptions {
  /** How many may wait. */
  readonly queue: number;
  readonly patience: Patience;
}

/**
 * Paints what is asked for, step by step, and makes files of it; none if the signal aborts. Steps at
 * which somebody looks are drawn.
 */
export type Paint = (
  request: JobRequest,
  signal: AbortSignal,
  isWatched: () => boolean,
) => AsyncGenerator<PaintStep, readonly Painted[]>;

/** Takes jobs and does them, one after the other. */
export class Jobs implements AsyncDisposable {
  readonly #paint: Paint;
  readonly #options: JobsOptions;
  readonly #queue = new FairQueue<Job>();
  readonly #jobs = new Map<string, Job>();
  #running: Job | undefined;
  #work: Promise<void> | undefined;
  #isClosed = false;
  /** How long the last job took. */
  #seconds = USUAL_SECONDS;

  constructor(paint: Paint, options: JobsOptions) {
    this.#paint = paint;
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
  add(owner: string, request: JobRequest): Job {
    this.checkRoom(owner);
    const job = new Job(owner, request, this.#options.patience);
    this.#jobs.set(job.id, job);
    this.#queue.push(owner, job);
    job.signal.addEventListener("abort", () => {
      this.#queue.remove(job);
      job.tell({ state: "cancelled" });
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
        await this.#do(job, job.request!);
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

  async #do(job: Job, request: JobRequest): Promise<void> {
    const run = this.#paint(request, job.signal, () => job.isLookedAt);
    let next = await run.next();
    for (; !next.done; next = await run.next()) {
      const { preview, ...progress } = next.value;
      job.tell({ state: "running", ...progress }, preview);
    }
    if (job.isOver) return;
    job.images = next.value;
    const withheld = job.images.flatMap((image, k) =>
      typeof image === "string" ? [[k, image] as const] : []
    );
    job.tell({
      ...{ state: "done", images: job.images.length },
      ...(withheld.length ? { withheld: Object.fromEntries(withheld) } : {}),
    });
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
