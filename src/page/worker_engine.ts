/**
 * An engine in a Worker of this page.
 *
 * @module
 */

import { type Samples, strengthOf } from "../sample/options.ts";
import type { DeviceKind } from "../gpu/open.ts";
import type {
  ModelFacts,
  WorkerPictures,
  WorkerSamplerOptions,
  WorkerTrainerOptions,
} from "../worker/protocol.ts";
import { sameShape } from "../shape.ts";
import { openWorker, type WorkerDevice, type WorkerModel } from "../worker/worker_device.ts";
import type { WorkerSampler } from "../worker/worker_sampler.ts";
import type { WorkerTrainer } from "../worker/worker_trainer.ts";
import { type Engine, EngineError, type Job, type Step } from "./engine.ts";

/** Samplers that stay compiled. */
const KEPT = 4;

/** Settings of {@linkcode WorkerEngine}. */
export interface WorkerEngineOptions {
  readonly device: DeviceKind;
  readonly threads?: number | undefined;
  /** The text of the Worker's program. */
  readonly program: string;
  /** Where the models of these names are. */
  readonly models: Readonly<Record<string, URL>>;
  readonly onNotice: (notice: string) => void;
}

/** Computes in this tab. */
export class WorkerEngine implements Engine {
  readonly #options: WorkerEngineOptions;
  readonly #files = new Map<string, readonly File[]>();
  #device: Promise<WorkerDevice> | undefined;
  readonly #models = new Map<string, Promise<WorkerModel>>();
  /** By what they were compiled for, the last used last. */
  readonly #samplers = new Map<string, Promise<WorkerSampler>>();

  constructor(options: WorkerEngineOptions) {
    this.#options = options;
  }

  get models(): string[] {
    return [...Object.keys(this.#options.models), ...this.#files.keys()];
  }

  /** What was added. */
  get files(): ReadonlyMap<string, readonly File[]> {
    return this.#files;
  }

  async about(): Promise<string> {
    return (await this.#opened()).name;
  }

  async open(model: string): Promise<ModelFacts> {
    return (await this.#load(model)).facts;
  }

  async add(files: readonly File[]): Promise<string> {
    const { name } = files.find((file) => !file.name.endsWith(".json")) ?? files[0];
    this.#files.set(name, files);
    this.#models.delete(name);
    for (const key of this.#samplers.keys()) {
      if (JSON.parse(key)[0] === name) this.#forget(key);
    }
    try {
      await this.#load(name);
    } catch (error) {
      this.#files.delete(name);
      throw error;
    }
    return name;
  }

  async *run(job: Job, signal: AbortSignal): AsyncGenerator<Step, Samples> {
    const sampler = await this.#sampler(job), { seed, count, labels, prompt, init, mask } = job;
    const { walk } = job;
    const conditions = mask && init ? { known: init.data, mask } : undefined;
    const stream = sampler.stream({
      ...{ seed, count },
      ...(labels ? { labels } : {}),
      ...(prompt ? { prompts: [prompt] } : {}),
      ...(init ? { init, strength: strengthOf(job) } : {}),
      ...(conditions ? { conditions } : {}),
      ...(walk ? { walk } : {}),
    }, { signal });
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return value;
      const { noisy, ...step } = value;
      // Latents are no pictures.
      yield sameShape(noisy.shape, step.sample.shape) ? value : step;
    }
  }

  /** Begins a training. */
  async train(pictures: WorkerPictures, options: WorkerTrainerOptions): Promise<WorkerTrainer> {
    return await (await this.#opened()).trainer(pictures, options);
  }

  /** Goes on with a training that was saved. */
  async resume(file: File): Promise<WorkerTrainer> {
    return await (await this.#opened()).resume(file);
  }

  reset(): void {
    this.#device?.then((device) => device[Symbol.dispose](), () => {});
    this.#device = undefined;
    this.#models.clear();
    this.#samplers.clear();
  }

  #opened(): Promise<WorkerDevice> {
    return this.#device ??= this.#start();
  }

  async #start(): Promise<WorkerDevice> {
    const { program, device, threads, onNotice } = this.#options;
    const url = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
    try {
      const worker = new Worker(url, { type: "module" });
      const settings = { worker, onNotice, ...(threads ? { threads } : {}) };
      return await openWorker(device, settings);
    } catch (error) {
      this.#device = undefined;
      throw new EngineError((error as Error).message, { cause: error });
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  #load(name: string): Promise<WorkerModel> {
    const known = this.#models.get(name);
    if (known) return known;
    const url = this.#options.models[name];
    // Both at a time: the Worker starts while the model is on its way.
    const source = url ? fetchFile(url) : Promise.resolve(this.#files.get(name)!);
    const loading = Promise.all([this.#opened(), source])
      .then(([device, source]) => device.load(source));
    this.#models.set(name, loading);
    loading.catch(() => this.#models.delete(name));
    return loading;
  }

  async #sampler(job: Job): Promise<WorkerSampler> {
    const model = await this.#load(job.model), { guidance } = job;
    const options: WorkerSamplerOptions = {
      ...{ method: job.method, steps: job.steps, batchSize: Math.min(job.count, 16) },
      ...(guidance && guidance.scale !== 1 ? { guidance } : {}),
      ...(job.mask ? { inpaint: {} } : {}),
    };
    const key = JSON.stringify([job.model, options]);
    const known = this.#samplers.get(key);
    const sampler = known ?? model.sampler(options);
    this.#samplers.delete(key);
    this.#samplers.set(key, sampler);
    sampler.catch(() => this.#samplers.delete(key));
    for (const old of [...this.#samplers.keys()].slice(0, -KEPT)) this.#forget(old);
    return await sampler;
  }

  #forget(key: string): void {
    this.#samplers.get(key)?.then((sampler) => sampler[Symbol.dispose](), () => {});
    this.#samplers.delete(key);
  }
}

/** A file of the site. */
async function fetchFile(url: URL): Promise<Blob> {
  const response = await fetch(url).catch((error: Error) => {
    throw new TypeError(`Cannot load ${url.pathname}: ${error.message}`);
  });
  if (response.ok) return await response.blob();
  throw new TypeError(`Cannot load ${url.pathname}: the answer is ${response.status}`);
}
