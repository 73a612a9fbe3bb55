/**
 * Trainings that do not fit a device: what to change so that they do.
 *
 * @module
 */

import { toSnakeCase } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { largestThat } from "../../gpu/compile_batch.ts";
import { type Device, LimitError } from "../../gpu/device.ts";
import type { Trainable } from "../../model/model.ts";
import type { Dataset } from "../../data/dataset.ts";
import { pictureSize } from "../../sample/options.ts";
import { parseTraining, type TrainingConfig } from "../../train/config.ts";
import { evaluationStep } from "../../train/step.ts";
import { makeStepSpec } from "../../train/step_inputs.ts";
import { type ItemSize, Trainer } from "../../train/trainer.ts";

/** Pixels on a side that are worth recommending. */
const SMALLEST = 8;

/**
 * Compiles a training.
 *
 * @throws {LimitError} If it does not fit the device; it names flags with which it would.
 */
export async function createTrainer<M extends Trainable>(
  device: Device,
  model: M,
  data: Dataset,
  training: TrainingConfig,
): Promise<Trainer<M>> {
  try {
    return await Trainer.create(device, model, data, training);
  } catch (error) {
    if (!(error instanceof LimitError) || error.largestBatch === undefined) throw error;
    throw withAdvice(error, device, model, data, training, error.limit, error.largestBatch);
  }
}

/**
 * The error with flags with which the training would fit.
 *
 * @param free Bytes that are free, on a device that has one memory for everything.
 * @param most The largest batch that may.
 */
export function withAdvice(
  { message, wanted, limit, largestBatch }: LimitError,
  device: Device,
  model: Trainable,
  data: ItemSize,
  training: TrainingConfig,
  free: number,
  most: number,
): LimitError {
  const flags = flagsThatFit(device, model, data, training, free, most);
  const advice = flags.length ? `; with ${flags.join(" or ")} it would fit` : "";
  return new LimitError(message + advice, wanted, limit, largestBatch);
}

/** Flags, each of which makes a training fit: a smaller batch, parts of it, smaller images. */
function flagsThatFit(
  device: Device,
  model: Trainable,
  image: ItemSize,
  training: TrainingConfig,
  free: number,
  most: number,
): string[] {
  const fits = (changed: Partial<TrainingConfig>, size = image) => {
    try {
      // Whether the settings go together is checked here as well.
      const settings = parseTraining(toSnakeCase({ ...training, ...changed }));
      const { bytes, excess } = Trainer.plan(device, model, size, settings);
      return !excess && (device.kind === "gpu" || bytes + samplingBytes(size) <= free);
    } catch (error) {
      if (error instanceof InputError) return false;
      throw error;
    }
  };
  // Sampling takes about as much as the loss of a single image without its gradient.
  const samplingBytes = (size: ItemSize) => {
    const sizes = { part: 1, images: 1, isEvaluation: true };
    return 1.5 * device.plan(evaluationStep(makeStepSpec(model, size, training, sizes))).bytes;
  };
  const flags: string[] = [], { batchSize, microBatch } = training;
  if (microBatch === null) {
    const batch = largestThat((n) => fits({ batchSize: n }), most + 1);
    if (batch) flags.push(`--batch-size ${batch}`);
  }
  const parts = Array.from({ length: most }, (_, i) => most - i).filter((n) => batchSize % n === 0);
  const part = parts.find((n) => fits({ microBatch: n }));
  if (part) flags.push(`--micro-batch ${part}`);
  if (image.shape.length !== 3) return flags;
  const size = pictureSize(image);
  for (let n = 2; Math.min(size.height, size.width) / n >= SMALLEST; n *= 2) {
    const [height, width] = [size.height, size.width].map((side) => Math.floor(side / n));
    if (!fits({}, { shape: [height, width, size.channels] })) continue;
    flags.push(`--size ${height === width ? width : `${width}x${height}`}`);
    break;
  }
  return flags;
}
