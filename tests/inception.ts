/**
 * Weights for Inception v3 by a formula of names and indices, as the golden numbers were made with.
 *
 * @module
 */

import type { FileTensor } from "../src/formats/safetensors.ts";
import { INCEPTION } from "../src/model/inception.ts";
import { parseNetwork } from "../src/model/network.ts";
import { fileShape } from "../src/model/parameters.ts";
import { sizeOf } from "../src/shape.ts";

/** Numbers in [-1, 1): FNV-1a of the name, and the finaliser of murmur3. */
function hashed(name: string, count: number): Float32Array<ArrayBuffer> {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return Float32Array.from({ length: count }, (_, i) => {
    let x = (hash + Math.imul(i, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ x >>> 16, 0x85ebca6b);
    x = Math.imul(x ^ x >>> 13, 0xc2b2ae35);
    x = (x ^ x >>> 16) >>> 0;
    return (x >>> 8) / 2 ** 23 - 1;
  });
}

/** All tensors as a file would have them. */
export function inceptionWeights(): Map<string, FileTensor> {
  const { layout } = parseNetwork({ _class_name: INCEPTION });
  return new Map(layout.specs.map((spec) => {
    const { name } = spec, shape = fileShape(spec), values = hashed(name, sizeOf(shape));
    const bound = Math.fround(Math.sqrt(6 / sizeOf(shape.slice(1))));
    const scaled = /\.(conv|fc)\.weight$/.test(`.${name}`)
      ? values.map((v) => v * bound)
      : /\.bn\.(weight|running_var)$/.test(name)
      ? values.map((v) => 1 + v / 4)
      : values.map((v) => v / 8);
    return [name, { dtype: "F32", shape, bytes: new Uint8Array(scaled.buffer) }];
  }));
}
