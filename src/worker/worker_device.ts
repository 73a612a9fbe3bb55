/**
 * The page's side: devices, models and samplers that are in a Worker.
 *
 * @module
 */

import { DeviceError } from "../gpu/device.ts";
import type { DeviceKind } from "../gpu/open.ts";
import { Caller } from "./channel.ts";
import type {
  ModelFacts,
  ModelSource,
  OpenedDevice,
  OpenedTrainer,
  SentSource,
  WorkerPictures,
  WorkerSamplerOptions,
  WorkerTrainerOptions,
} from "./protocol.ts";
import { WorkerSampler } from "./worker_sampler.ts";
import { WorkerTrainer } from "./worker_trainer.ts";

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
    caller.fail(new DeviceError(`The Worker failed: ${whyOf(event)}`));
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

/** What an event tells; of a program that never ran, browsers tell nothing. */
function whyOf({ message, filename }: Partial<ErrorEvent>): string {
  if (message) {
    return filename && !/^(blob|data):/.test(filename) ? `${message} (${filename})` : message;
  }
  return "it could not be started. Either a content security policy forbids it, which must allow it, " +
    "by worker-src blob: if it is a Blob, or its program could not be loaded, or has something in " +
    "it that is unknown here";
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

  /**
   * Begins a training on pictures.
   *
   * @throws {InputError} If pictures and settings do not fit together.
   * @throws {LimitError} If it does not fit the device.
   */
  async trainer(pictures: WorkerPictures, options: WorkerTrainerOptions): Promise<WorkerTrainer> {
    const call = { pictures, options };
    const opened = await this.#caller.call<Omit<OpenedTrainer, "pictures">>("beginTraining", call);
    return new WorkerTrainer(this.#caller, { ...opened, pictures });
  }

  /**
   * Goes on with a training that {@linkcode WorkerTrainer.save} saved.
   *
   * @throws {InputError} If the file is damaged, or something else.
   * @throws {LimitError} If it does not fit the device.
   */
  async resume(file: Blob): Promise<WorkerTrainer> {
    return new WorkerTrainer(this.#caller, await this.#caller.call("resumeTraining", file));
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
