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
   *
   * @param place Where a part may be put; elsewhere, if it gives none.
   */
  parts(
    place?: (offset: number, length: number) => WeightArray | undefined,
  ): Iterable<readonly [offset: number, values: WeightArray]>;
}

/** Memory for elements of an input. */
export type Place = NonNullable<Parameters<WeightParts["parts"]>[0]>;

/** Values in memory. */
export type WeightArray = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** The values of an input: `f32` in an array, or any in parts. */
export type WeightValues = Float32Array<ArrayBuffer> | WeightParts;

/** Memory for weights, without their values. */
export const weightBuffer = (device: Device, weights: WeightValues): TensorBuffer =>
  device.buffer(weights.length, "dtype" in weights ? weights.dtype : "f32");

/** Writes weights to buffers of their own. */
export function writeWeights(weights: WeightValues, ...buffers: readonly TensorBuffer[]): void {
  // With a single one, values are made where they belong, if that can be.
  const [first, ...others] = buffers, isOne = !others.length;
  let placed: WeightArray | undefined;
  const place: Place = (offset, length) =>
    placed = isOne ? first?.place?.(offset, length) : undefined;
  const parts = "dtype" in weights ? weights.parts(place) : [[0, weights] as const];
  for (const [offset, values] of parts) {
    if (values === placed) continue;
    for (const buffer of buffers) buffer.write(values, offset);
  }
}
