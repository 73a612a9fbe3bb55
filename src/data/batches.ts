/**
 * Batches of a data set, in the order in which a training takes them.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import type { Dataset } from "./dataset.ts";

/** What a step learns from. It is good until the next one is asked for. */
export interface Batch {
  /** `[size, ...shape]`, pictures in [-1, 1]. */
  readonly images: Float32Array<ArrayBuffer>;
  /** The class of each image, 0 where there are none. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** Which items of the set these are. */
  readonly indices: Uint32Array<ArrayBuffer>;
}

/** Which images, and how many at a time. */
export interface BatchPlan {
  /** Images a batch. */
  readonly size: number;
  /** Of what is drawn to vary images. */
  readonly seed: number;
  /** The number of the image at a place of the training's endless sequence. */
  imageAt(place: number): number;
}

/** Where batches come from. Disposing of it ends whatever prepares them. */
export interface Batches extends Disposable {
  /**
   * The images at `size` places of the sequence, a pure function of the first one. Whoever prepares
   * batches ahead does so for the places that follow.
   *
   * @throws {InputError} If the set has too many images that cannot be read.
   */
  at(place: number): Promise<Batch>;
}

/** Batches of a set: prepared ahead if it can do that, else read when they are asked for. */
export function openBatches(data: Dataset, plan: BatchPlan): Batches {
  return data.batches?.(plan) ?? new DirectBatches(data, plan);
}

class DirectBatches implements Batches {
  readonly #data: Dataset;
  readonly #plan: BatchPlan;
  readonly #batch: Batch;

  constructor(data: Dataset, plan: BatchPlan) {
    this.#data = data;
    this.#plan = plan;
    this.#batch = {
      images: new Float32Array(plan.size * sizeOf(data.shape)),
      labels: new Int32Array(plan.size),
      indices: new Uint32Array(plan.size),
    };
  }

  async at(place: number): Promise<Batch> {
    const { size } = this.#plan,
      { images, labels, indices } = this.#batch,
      each = images.length / size;
    for (let i = 0; i < size; i++) {
      const index = this.#plan.imageAt(place + i);
      const reading = this.#data.read(index, images, i * each);
      if (reading) await reading;
      labels[i] = this.#data.labels?.[index] ?? 0;
      indices[i] = index;
    }
    return this.#batch;
  }

  [Symbol.dispose](): void {}
}
