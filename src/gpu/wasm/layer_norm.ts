/**
 * Layer normalisation on the CPU: mean, variance and result of a row while it is in the first cache.
 *
 * @module
 */

import { sizeOf } from "../../shape.ts";
import type { Tensor } from "../tensor.ts";
import {
  add,
  type Body,
  f32x4,
  load,
  loadSplat,
  type Local,
  mul,
  type Operand,
} from "./assembler.ts";
import { eachUnit, pointAt, pointTo, type WasmKernel } from "./kernel.ts";
import { TASK_ELEMENTS, walk } from "./loop_codegen.ts";
import { horizontal } from "./vector.ts";

/** The kernel of a node with inputs x, scale and shift. */
export function lowerLayerNorm(node: Tensor<{ readonly eps: number }>): WasmKernel[] {
  const width = node.shape.at(-1)!, rows = sizeOf(node.shape) / width, { eps } = node.attributes;
  const each = Math.max(1, Math.floor(TASK_ELEMENTS / width));
  return [{
    label: "layer_norm",
    key: `layer_norm ${rows} ${width} ${eps}`,
    pointers: [...node.inputs.map(pointTo), pointAt(node)],
    tasks: Math.ceil(rows / each),
    scratch: 0,
    build(f, task, [x, scale, shift, y]) {
      const from = f.local("i32"), to = f.local("i32"), mean = f.local("v128");
      const share = f.constant(1 / width);
      eachUnit(f, task, rows, each, (row) => {
        f.set(from, add(x, mul(row, 4 * width)));
        f.set(to, add(y, mul(row, 4 * width)));
        f.set(mean, f32x4.mul(emitSum(f, width, from, (v) => v), share));
        const variance = emitSum(f, width, from, (v) => {
          const delta = f.vector(f32x4.sub(v, mean));
          return f32x4.mul(delta, delta);
        });
        const deviation = f32x4.sqrt(f32x4.madd(variance, share, f.constant(eps)));
        const reciprocal = f.vector(f32x4.div(f.constant(1), deviation));
        walk(f, width, 2, (bytes, vectors, isVector) => {
          const [xs, scales, shifts, ys] = [from, scale, shift, to].map((base) =>
            f.integer(add(base, bytes))
          );
          const read = isVector ? load : loadSplat;
          const values = Array.from({ length: vectors }, (_, v) => {
            const normal = f32x4.mul(f32x4.sub(read(xs, 16 * v), mean), reciprocal);
            return f.vector(f32x4.madd(normal, read(scales, 16 * v), read(shifts, 16 * v)));
          });
          values.forEach((value, v) => {
            if (isVector) f.store(ys, 16 * v, value);
            else f.storeLane(ys, 0, value, 0);
          });
        });
      });
    },
  }];
}

/** The sum of what a function makes of a row, in all lanes. */
function emitSum(
  f: Body,
  width: number,
  from: Local,
  value: (v: Operand) => Operand,
): Local {
  const sums = [f.vector(f.constant(0)), f.vector(f.constant(0))];
  walk(f, width, 2, (bytes, vectors, isVector) => {
    const at = f.integer(add(from, bytes));
    for (let v = 0; v < vectors; v++) {
      const read = value(isVector ? load(at, 16 * v) : loadSplat(at));
      const term = isVector ? read : f32x4.replaceLane(f.constant(0), 0, f32x4.lane(read, 0));
      f.set(sums[v], f32x4.add(sums[v], term));
    }
  });
  return f.vector(horizontal(f32x4.add(sums[0], sums[1])));
}
