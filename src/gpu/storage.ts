/**
 * What kernels read and write: tensors, and memory between the kernels of one operation.
 *
 * @module
 */

import { sizeOf } from "./shape.ts";
import type { DType, Tensor } from "./tensor.ts";

/** Memory between the kernels of one operation. */
export class Scratch {
  readonly dtype: DType = "f32";
  /** Number of elements. */
  readonly size: number;

  constructor(size: number) {
    this.size = size;
  }
}

/** Something with memory of its own. */
export type Storage = Tensor | Scratch;

/** Number of elements of a storage. */
export const storageSize = (storage: Storage): number =>
  storage instanceof Scratch ? storage.size : sizeOf(storage.shape);
