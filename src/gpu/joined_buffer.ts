/**
 * Several buffers as a single one.
 *
 * @module
 */

import type { TensorBuffer } from "./device.ts";
import type { DType } from "./tensor.ts";

/** Buffers of one type, one after the other, as if they were one. Disposing of it frees none. */
export class JoinedBuffer implements TensorBuffer {
  readonly dtype: DType;
  readonly length: number;
  /** The buffers, and the element at which each starts. */
  readonly #parts: readonly (readonly [start: number, buffer: TensorBuffer])[];

  constructor(buffers: readonly TensorBuffer[]) {
    let length = 0;
    this.#parts = buffers.map((buffer) => [(length += buffer.length) - buffer.length, buffer]);
    this.length = length;
    this.dtype = buffers[0].dtype;
  }

  /** What of a range lies in which buffer. */
  #partsOf(offset: number, length: number) {
    const end = offset + length;
    if (!(offset >= 0 && length >= 0 && end <= this.length)) {
      throw new RangeError(
        `Cannot reach elements ${offset} to ${end} of a buffer of ${this.length}`,
      );
    }
    return this.#parts.flatMap(([start, buffer]) => {
      const from = Math.max(offset, start), to = Math.min(end, start + buffer.length);
      return from < to ? [{ buffer, from, length: to - from, at: from - start }] : [];
    });
  }

  write(values: ArrayLike<number>, offset = 0): void {
    const array = ArrayBuffer.isView(values) ? values as Float32Array : Float32Array.from(values);
    for (const { buffer, from, length, at } of this.#partsOf(offset, values.length)) {
      buffer.write(array.subarray(from - offset, from - offset + length), at);
    }
  }

  async read(
    offset = 0,
    length: number = this.length - offset,
  ): Promise<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
    const parts = this.#partsOf(offset, length);
    // Most reads are of a single buffer: no copy is needed.
    if (parts.length === 1) return await parts[0].buffer.read(parts[0].at, length);
    const all = this.dtype === "i32" ? new Int32Array(length) : new Float32Array(length);
    for (const part of parts) {
      all.set(await part.buffer.read(part.at, part.length), part.from - offset);
    }
    return all;
  }

  [Symbol.dispose](): void {}
}
