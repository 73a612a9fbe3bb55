/**
 * Values of inputs that do not change from run to run.
 *
 * @module
 */

import type { Device, TensorBuffer } from "../gpu/device.ts";
import type { DType } from "../gpu/tensor.ts";

/** Values that are read or made part by part, so that there is never a copy of all of them. */
export interface WeightParts {
  /** Type of the input. */
  readonly dtype: DType;
  /** Elements of the input. */
  readonly length: number;
  /**
   * The parts, and the element at which each starts; between them are zeros. A part may be there only
   * until the next one is.
   */
  parts(): Iterable<readonly [offset: number, values: WeightArray]>;
}

/** Values in memory. */
export type WeightArray = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** The values of an input: `f32` in an array, or any in parts. */
export type WeightValues = Float32Array<ArrayBuffer> | WeightParts;

/** Memory for weights, without their values. */
export const weightBuffer = (device: Device, weights: WeightValues): TensorBuffer =>
  device.buffer(weights.length, "dtype" in weights ? weights.dtype : "f32");

/** Writes weights to buffers of their own. */
export function writeWeights(weights: WeightValues, ...buffers: readonly TensorBuffer[]): void {
  const parts = "dtype" in weights ? weights.parts() : [[0, weights] as const];
  for (const [offset, values] of parts) {
    for (const buffer of buffers) buffer.write(values, offset);
  }
}
