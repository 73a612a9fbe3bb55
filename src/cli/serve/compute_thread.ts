/**
 * A thread that computes, so that requests are answered while it evaluates a network.
 *
 * @module
 */

import { fromFileUrl } from "@std/path";
import { DeviceError } from "../../gpu/device.ts";
import { answer, Caller } from "../../worker/channel.ts";
import { mayRead } from "../terminal/files.ts";
import { type ComputeSetup, makeService, type Painted, type PaintStep } from "./compute.ts";
import type { Served } from "./models.ts";
import type { JobRequest } from "./schemas.ts";

/** The folder of this program, which a thread is loaded from. */
const program = new URL("../../../", import.meta.url);

/** Settings of a thread. */
export interface ComputeThreadOptions extends ComputeSetup {
  /** The models, for where no thread can be started. */
  readonly models: ReadonlyMap<string, Served>;
  /** Whether to start none: requests wait then while a network is evaluated. */
  readonly isShared?: boolean;
  /** Takes what is to be said of the device. */
  readonly onNotice?: (notice: string) => void;
}

/** Someone to call, and how to end that. */
interface Conversation {
  readonly caller: Caller;
  end(): void;
}

/** The thread. */
export class ComputeThread implements AsyncDisposable {
  readonly #options: ComputeThreadOptions;
  #conversation: Conversation | undefined;
  #name = "";
  #failure: string | undefined;

  private constructor(options: ComputeThreadOptions) {
    this.#options = options;
  }

  /**
   * Starts it, and opens a device.
   *
   * @throws {DeviceError} If it cannot be started, or there is no device.
   */
  static async start(options: ComputeThreadOptions): Promise<ComputeThread> {
    const thread = new ComputeThread(options);
    await thread.#begin();
    return thread;
  }

  /** Its device, in words. */
  get name(): string {
    return this.#name;
  }

  /** Why it ended, in words, until the next request starts another one. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /**
   * Paints.
   *
   * @param isWatched Whether somebody looks at the step that was just done.
   * @throws {DeviceError} If the device fails, or the thread ends; the next request gets another one.
   */
  async *paint(
    request: JobRequest,
    signal: AbortSignal,
    isWatched: () => boolean,
  ): AsyncGenerator<PaintStep, readonly Painted[]> {
    const { caller } = this.#conversation ?? await this.#begin();
    return yield* caller.stream<PaintStep, readonly Painted[]>("paint", request, {
      ...{ signal, onQuestion: isWatched },
    });
  }

  async #begin(): Promise<Conversation> {
    const { places, isUnchecked = false, flags, models, isShared, onNotice } = this.#options;
    const mayStart = program.protocol !== "file:" || mayRead(fromFileUrl(program));
    if (!isShared && !mayStart) {
      onNotice?.(
        "note: requests wait while a network is evaluated: a thread for that needs " +
          `--allow-read=${fromFileUrl(program)}`,
      );
    }
    const begun = isShared || !mayStart ? converse(models) : this.#startWorker();
    this.#conversation = begun;
    try {
      this.#name = await begun.caller.call(
        "open",
        { places, isUnchecked, flags } satisfies ComputeSetup,
        {
          onReport: (notice: string) => onNotice?.(notice),
        },
      );
      this.#failure = undefined;
      return begun;
    } catch (error) {
      this.#conversation = undefined;
      this.#failure = String((error as Error).message);
      begun.end();
      throw error;
    }
  }

  #startWorker(): Conversation {
    const worker = new Worker(new URL("./compute_worker.ts", import.meta.url), { type: "module" });
    const caller = new Caller(worker);
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const failure = `The thread that computes failed: ${event.message}`;
      this.#conversation = undefined;
      this.#failure = failure;
      this.#options.onNotice?.(`${failure}; the next job starts another one`);
      worker.terminate();
      caller.fail(new DeviceError(failure));
    });
    return { caller, end: () => worker.terminate() };
  }

  /** Ends it, after what is being computed. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { caller, end } = this.#conversation ?? {};
    // One that fails now has nothing to free.
    await caller?.call("close", undefined).catch(() => {});
    end?.();
  }
}

/** A conversation within this thread. */
function converse(models: ReadonlyMap<string, Served>): Conversation {
  const { port1, port2 } = new MessageChannel();
  answer(port2, makeService(models));
  const caller = new Caller(port1);
  port1.start();
  port2.start();
  return {
    caller,
    end() {
      port1.close();
      port2.close();
    },
  };
}
