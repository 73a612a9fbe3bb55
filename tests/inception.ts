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
import { hashed } from "./formula.ts";

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
