/**
 * Weights that need no file, since a formula gives them.
 *
 * @module
 */

import type { FileTensor } from "../src/formats/safetensors.ts";
import type { Network } from "../src/model/network.ts";
import { fileShape } from "../src/model/parameters.ts";
import { sizeOf } from "../src/shape.ts";

/** Numbers in [-1, 1): FNV-1a of the name, and the finaliser of murmur3. */
export function hashed(name: string, count: number): Float32Array<ArrayBuffer> {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  const values = new Float32Array(count);
  // A loop, since networks have up to a thousand million numbers.
  for (let i = 0; i < count; i++) {
    let x = (hash + Math.imul(i, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ x >>> 16, 0x85ebca6b);
    x = Math.imul(x ^ x >>> 13, 0xc2b2ae35);
    x = (x ^ x >>> 16) >>> 0;
    values[i] = (x >>> 8) / 2 ** 23 - 1;
  }
  return values;
}

/** Tensors by their names and the shapes that they have in a file; the values of each when asked for. */
export const formulaTensors = (
  shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
): Map<string, FileTensor> =>
  new Map(
    Iterator.from(shapes).map(([name, shape]) => [name, {
      ...{ dtype: "F32", shape },
      get bytes() {
        return new Uint8Array(formulaValues(name, shape).buffer);
      },
    }]),
  );

/** The weights of a network. */
export const formulaWeights = ({ layout }: Network): Map<string, FileTensor> =>
  formulaTensors(layout.specs.map((spec) => [spec.name, fileShape(spec)]));

/** The values of a tensor by name, in the order of files. */
function formulaValues(name: string, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const values = hashed(name, sizeOf(shape));
  const [scale, shift] = shape.length > 1
    ? [Math.fround(Math.sqrt(3 / sizeOf(shape.slice(1)))), 0]
    : name.endsWith(".bias")
    ? [1 / 8, 0]
    : [1 / 4, 1];
  for (let i = 0; i < values.length; i++) values[i] = values[i] * scale + shift;
  return values;
}
