/**
 * A device that computes in a Worker, so that the page that asks stays responsive.
 *
 * @example Four digits
 * ```ts
 * import { openWorker } from "@x/ddpm/worker";
 *
 * using device = await openWorker("cpu");
 * const model = await device.load("mnist");
 * const sampler = await model.sampler({ steps: 4, batchSize: 4 });
 * for await (const { step, sample } of sampler.stream({ count: 4, seed: 1, labels: [3, 1, 4, 1] })) {
 *   console.log(step, sample.data.length);
 * }
 * ```
 *
 * @module
 */

export { openWorker, type WorkerOptions } from "./worker_device.ts";
export { WorkerDevice, WorkerModel } from "./worker_device.ts";
export { type WorkerCallOptions, WorkerSampler } from "./worker_sampler.ts";
export { WorkerTrainer } from "./worker_trainer.ts";
export type {
  ModelFacts,
  ModelSource,
  WorkerPictures,
  WorkerRunOptions,
  WorkerSamplerOptions,
  WorkerStreamOptions,
  WorkerTrainerOptions,
} from "./protocol.ts";
