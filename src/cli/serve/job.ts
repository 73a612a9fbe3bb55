/**
 * A job: how far it is, and who watches.
 *
 * @module
 */

import type { Painted } from "./compute.ts";
import type { JobRequest, JobState, Preview } from "./schemas.ts";

/** Events that wait for a watcher; of more, the oldest steps are left out. */
const MAX_PENDING = 64;
/** How often watchers get a sign of life, so that those that are gone are found out. */
const PULSE_MS = 15_000;

const encoder = new TextEncoder();

/** When a job is given up that nobody watches. */
export interface Patience {
  /** Milliseconds after the last watcher left. */
  readonly left: number;
  /** Milliseconds after it was asked for, or asked about. */
  readonly asked: number;
}

/** Someone who watches: events that were not taken yet, and how to tell of more. */
interface Watcher {
  readonly pending: { readonly bytes: Uint8Array<ArrayBuffer>; readonly isStep: boolean }[];
  wake(): void;
}

/** A job. */
export class Job {
  readonly id: string = crypto.randomUUID();
  readonly owner: string;
  /** What is to be done, until it is. */
  request: JobRequest | undefined;
  /** The pictures, when they are done. */
  images: readonly Painted[] = [];
  /** Whether a request waits for its result. */
  isHeld = false;
  readonly #abort = new AbortController();
  readonly #watchers = new Set<Watcher>();
  readonly #patience: Patience;
  readonly #begun = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #state: Omit<JobState, "id"> = { state: "queued" };
  /** What was drawn last, and whether it is of the last step. */
  #preview: Preview | undefined;
  #isFresh = false;
  /** Whether somebody who comes from time to time waits for a preview. */
  #isAwaited = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(owner: string, request: JobRequest, patience: Patience) {
    this.owner = owner;
    this.request = request;
    this.#patience = patience;
    this.touch();
  }

  /** Aborts when it is cancelled. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get state(): JobState {
    return { id: this.id, ...this.#state };
  }

  get isOver(): boolean {
    return this.#state.state !== "queued" && this.#state.state !== "running";
  }

  /** Whether anybody follows it. */
  get isWatched(): boolean {
    return this.#watchers.size > 0 || this.isHeld;
  }

  /** Whether anybody looks at its next step. */
  get isLookedAt(): boolean {
    return this.#watchers.size > 0 || this.#isAwaited;
  }

  /** What was drawn last; the next step is drawn for whoever asks again. */
  look(): Preview | undefined {
    this.#isAwaited = true;
    return this.#preview;
  }

  /** Bytes of its pictures. */
  get bytes(): number {
    return this.images.reduce((n, { length }) => n + length, 0);
  }

  /** Resolves after the first step, or when it is over. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** Resolves when it is over. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Tells how far it is. */
  tell(state: Omit<JobState, "id">, preview?: Preview): void {
    if (this.isOver) return;
    this.#state = state;
    this.#isFresh = preview !== undefined;
    if (preview) {
      this.#preview = preview;
      this.#isAwaited = false;
    }
    const event = encode(this.state, preview), isStep = state.step !== undefined;
    for (const watcher of this.#watchers) {
      const { pending } = watcher;
      const oldest = pending.findIndex(({ isStep }) => isStep);
      if (pending.length >= MAX_PENDING && oldest >= 0) pending.splice(oldest, 1);
      pending.push({ bytes: event, isStep });
      watcher.wake();
    }
    if (isStep || this.isOver) this.#begun.resolve();
    if (!this.isOver) return;
    clearTimeout(this.#timer);
    this.request = undefined;
    this.#ended.resolve();
  }

  /** Somebody asks for it. */
  touch(patience: number = this.#patience.asked): void {
    clearTimeout(this.#timer);
    if (this.isOver) return;
    this.#timer = setTimeout(() => {
      if (!this.isWatched) this.cancel();
    }, patience);
  }

  /** Ends it; the step that is being computed is the last one. */
  cancel(): void {
    this.#abort.abort();
  }

  /** How far it is, from now on, as server-sent events; ends with the job. */
  watch(): ReadableStream<Uint8Array<ArrayBuffer>> {
    let wakeUp = () => {};
    const watcher: Watcher = {
      pending: [{
        bytes: encode(this.state, this.#isFresh ? this.#preview : undefined),
        isStep: false,
      }],
      wake: () => wakeUp(),
    };
    let isGone = false;
    if (!this.isOver) this.#watchers.add(watcher);
    return new ReadableStream({
      pull: async (controller) => {
        if (!watcher.pending.length && !this.isOver) await this.#wait((wake) => wakeUp = wake);
        if (isGone) return;
        const next = watcher.pending.shift();
        if (next) return controller.enqueue(next.bytes);
        if (!this.isOver) return controller.enqueue(encoder.encode(": waiting\n\n"));
        this.#watchers.delete(watcher);
        controller.close();
      },
      cancel: () => {
        isGone = true;
        this.#watchers.delete(watcher);
        wakeUp();
        if (!this.isWatched) this.touch(this.#patience.left);
      },
    }, { highWaterMark: 0 });
  }

  /** Waits to be woken up, but not for long. */
  async #wait(listen: (wake: () => void) => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, PULSE_MS);
    listen(resolve);
    await promise;
    clearTimeout(timer);
  }
}

/** A server-sent event, called by what the job is at. */
function encode(state: JobState, preview?: Preview): Uint8Array<ArrayBuffer> {
  const name = state.step === undefined ? state.state : "step";
  const data = JSON.stringify({ ...state, ...(preview ? { preview } : {}) });
  return encoder.encode(`event: ${name === "failed" ? "failure" : name}\ndata: ${data}\n\n`);
}
