/**
 * What kernels read and write: tensors, and memory between the kernels of one operation.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import type { DType, Tensor } from "./tensor.ts";

/** How an element lies in memory; what is computed with it is 32 bits wide in any case. */
export type ElementType = DType | "f16";

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

/** How the elements of a storage lie in memory. */
export const elementOf = (storage: Storage): ElementType =>
  storage instanceof Scratch || !storage.isHalf ? storage.dtype : "f16";

/** Bytes of an element. */
export const elementBytes = (storage: Storage): 2 | 4 => elementOf(storage) === "f16" ? 2 : 4;

/** Bytes of a storage. */
export const storageBytes = (storage: Storage): number =>
  storageSize(storage) * elementBytes(storage);
