/**
 * The page's side: devices, models and samplers that are in a Worker.
 *
 * @module
 */

import { DeviceError } from "../gpu/device.ts";
import type { DeviceKind } from "../gpu/open.ts";
import type { Samples, SamplingStep } from "../sample/options.ts";
import type { Shape } from "../shape.ts";
import { Caller } from "./channel.ts";
import type {
  ModelFacts,
  ModelSource,
  OpenedDevice,
  OpenedSampler,
  SentSource,
  WorkerSamplerOptions,
  WorkerStreamOptions,
} from "./protocol.ts";

/** Settings of {@linkcode openWorker}. */
export interface WorkerOptions {
  /**
   * A Worker whose module imports `@x/ddpm/worker/serve`, which bundles need. It ends with the device.
   */
  readonly worker?: Worker;
  /** Threads of the CPU device. @default {as many as there are cores} */
  readonly threads?: number;
  /** Is told, in a sentence, why there is no GPU, or only one thread. */
  readonly onNotice?: (notice: string) => void;
}

/**
 * Starts a Worker and opens a device in it. Dispose of it to end the Worker.
 *
 * @throws {DeviceError} If the Worker cannot be started, or `openDevice()` fails in it.
 *
 * @example
 * ```ts
 * import { openWorker } from "@x/ddpm/worker";
 *
 * using device = await openWorker("cpu", { onNotice: console.log });
 * console.log(device.kind, device.name);
 * ```
 */
export async function openWorker(
  kind: DeviceKind = "auto",
  { worker = startWorker(), threads, onNotice }: WorkerOptions = {},
): Promise<WorkerDevice> {
  const caller = new Caller(worker);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    const why = event.message ||
      "it could not be started; a content security policy must allow it, " +
        "by worker-src blob: if it is a Blob";
    caller.fail(new DeviceError(`The Worker failed: ${why}`));
  });
  try {
    const onReport = (notice: string) => onNotice?.(notice);
    const opened = await caller.call<OpenedDevice>("open", { kind, threads }, { onReport });
    return new WorkerDevice(worker, caller, opened);
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

/** The Worker of this file's neighbour; in a bundle there is none. */
function startWorker(): Worker {
  const { url } = import.meta, program = url.replace(/worker_device(?=\.[jt]s$)/, "serve");
  if (program !== url) return new Worker(program, { type: "module" });
  throw new DeviceError(
    "Cannot start a Worker: a bundle does not tell where its program is; give a worker, of a module " +
      "that imports @x/ddpm/worker/serve",
  );
}

/** A device in a Worker. */
export class WorkerDevice implements Disposable {
  /** `gpu` for WebGPU, `cpu` for WebAssembly. */
  readonly kind: "gpu" | "cpu";
  /** Its own description. */
  readonly name: string;
  readonly #worker: Worker;
  readonly #caller: Caller;

  /** @internal */
  constructor(worker: Worker, caller: Caller, { kind, name }: OpenedDevice) {
    this.kind = kind;
    this.name = name;
    this.#worker = worker;
    this.#caller = caller;
  }

  /**
   * Reads a model.
   *
   * @throws {InputError} If it is damaged, or of none of the projects that are known.
   * @throws {TypeError} If it cannot be reached.
   */
  async load(source: ModelSource): Promise<WorkerModel> {
    const { id, ...facts } = await this.#caller.call<ModelFacts & { readonly id: number }>(
      "load",
      (source instanceof URL ? { href: source.href } : source) satisfies SentSource,
    );
    return new WorkerModel(this.#caller, id, facts);
  }

  /** Ends the Worker; what is being computed fails. */
  [Symbol.dispose](): void {
    this.#worker.terminate();
    this.#caller.fail(new DeviceError("The device was closed"));
  }
}

/** A model in a Worker. */
export class WorkerModel implements Disposable {
  /** What is known of it. */
  readonly facts: ModelFacts;
  readonly #caller: Caller;
  readonly #id: number;

  /** @internal */
  constructor(caller: Caller, id: number, facts: ModelFacts) {
    this.facts = facts;
    this.#caller = caller;
    this.#id = id;
  }

  /**
   * Compiles a sampler of it.
   *
   * @throws {InputError} If the settings do not fit the model.
   * @throws {DeviceError} If it does not fit the device.
   */
  async sampler(options: WorkerSamplerOptions = {}): Promise<WorkerSampler> {
    const call = { model: this.#id, options };
    return new WorkerSampler(this.#caller, await this.#caller.call("compile", call));
  }

  /** Forgets it; its samplers live on. */
  [Symbol.dispose](): void {
    this.#caller.call("unload", this.#id).catch(() => {});
  }
}

/** What a page keeps to itself of a run. */
export interface WorkerCallOptions {
  /** Stops between evaluations of the network; what is done so far is returned. */
  readonly signal?: AbortSignal;
  /** Is told how many of all steps of all batches are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A sampler in a Worker; what is given and taken is copied. */
export class WorkerSampler implements Disposable {
  /** The shape of what it makes. */
  readonly itemShape: Shape;
  /** Steps of a run. */
  readonly steps: number;
  /** Evaluations of the network in a run. */
  readonly evaluations: number;
  readonly #caller: Caller;
  readonly #id: number;

  /** @internal */
  constructor(caller: Caller, { id, itemShape, steps, evaluations }: OpenedSampler) {
    this.itemShape = itemShape;
    this.steps = steps;
    this.evaluations = evaluations;
    this.#caller = caller;
    this.#id = id;
  }

  /**
   * Makes items, as `Sampler.sample()`.
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   */
  sample(
    options: WorkerStreamOptions = {},
    { signal, onProgress }: WorkerCallOptions = {},
  ): Promise<Samples> {
    const onReport = ([done, total]: [number, number]) => onProgress?.(done, total);
    return this.#caller.call("sample", { sampler: this.#id, options }, { signal, onReport });
  }

  /**
   * Makes items and shows how they come about, as `Sampler.stream()`. Who stops listening ends the run.
   *
   * @throws {InputError} If settings are wrong.
   * @throws {DeviceError} If the device fails.
   */
  stream(
    options: WorkerStreamOptions = {},
    { signal }: Pick<WorkerCallOptions, "signal"> = {},
  ): AsyncGenerator<SamplingStep, Samples> {
    return this.#caller.stream("stream", { sampler: this.#id, options }, signal);
  }

  /** Frees its memory in the Worker. */
  [Symbol.dispose](): void {
    this.#caller.call("dispose", this.#id).catch(() => {});
  }
}
