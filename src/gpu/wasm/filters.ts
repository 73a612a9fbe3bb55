/**
 * Filters of minimal filtering, into frequencies and back.
 *
 * @module
 */

import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { F4, transposed } from "../winograd.ts";
import { add, div, f32, f32x4, i32, load, loadSplat, mul, type Operand, rem } from "./assembler.ts";
import { panelWidth } from "./gemm.ts";
import { pointAt, pointFrom, pointTo, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { emitSquare, FREQUENCIES, N } from "./tiles.ts";

/** G w Gᵀ as panels [frequency][out / width][in][width]. */
export function transformWeights(
  w: Tensor,
  channels: number,
  outChannels: number,
  isTurned: boolean,
  { pair }: WasmTarget,
): { kernel: WasmKernel; weights: Scratch } {
  const panel = panelWidth(pair), weights = new Scratch(FREQUENCIES * channels * outChannels);
  const stride = 4 * channels * outChannels;
  const kernel: WasmKernel = {
    label: "conv2d, weights",
    key: `winograd w ${channels} ${outChannels} ${isTurned} ${pair}`,
    pointers: [pointTo(w), pointAt(weights)],
    tasks: Math.ceil(channels / 8),
    scratch: 0,
    build(f, task, [from, to]) {
      const c = f.integer(mul(task, 8)), last = f.integer(add(c, 8));
      f.if(i32.gt(last, channels), () => f.set(last, channels));
      const at = f.local("i32"), out = f.local("i32"), k = f.local("i32");
      // Turned round, w[2 - i][2 - j][k][c] is wanted: input and output change places.
      const fetch = (i: number, j: number): Operand => {
        if (!isTurned) return load(at, (3 * i + j) * stride);
        const offset = (8 - (3 * i + j)) * stride;
        const column = (n: number) => f32.load(at, offset + n * 4 * channels);
        return [1, 2, 3].reduce<Operand>(
          (v, n) => f32x4.replaceLane(v, n, column(n)),
          loadSplat(at, offset),
        );
      };
      f.loop(c, last, 1, () => {
        f.set(k, 0);
        f.loop(k, outChannels, 4, () => {
          const step = isTurned
            ? add(mul(k, 4 * channels), mul(c, 4))
            : add(mul(c, 4 * outChannels), mul(k, 4));
          f.set(at, add(from, step));
          const place = mul(add(mul(div(k, panel), channels), c), panel);
          f.set(out, add(to, mul(add(place, rem(k, panel)), 4)));
          emitSquare(f, F4.g, fetch, (i, j, value) => f.store(out, (i * N + j) * stride, value));
        });
      });
    },
  };
  return { kernel, weights };
}

/** Gᵀ (sum of the parts) G. */
export function transformBack(
  sums: Scratch,
  parts: number,
  channels: number,
  outChannels: number,
  dw: Tensor,
): WasmKernel {
  const stride = 4 * channels * outChannels, part = FREQUENCIES * stride;
  return {
    label: "conv2d_weight_grad, back",
    key: `winograd back ${channels} ${outChannels} ${parts}`,
    pointers: [pointFrom(sums), pointAt(dw)],
    tasks: Math.ceil(channels / 8),
    scratch: 0,
    build(f, task, [from, to]) {
      const at = f.integer(add(from, mul(task, 32 * outChannels)));
      const last = f.integer(add(at, 32 * outChannels));
      const limit = f.integer(add(from, stride));
      f.if(i32.gt(last, limit), () => f.set(last, limit));
      const out = f.integer(add(to, mul(task, 32 * outChannels)));
      f.loop(at, last, 16, () => {
        const fetch = (i: number, j: number): Operand => {
          const offset = (i * N + j) * stride;
          let sum: Operand = load(at, offset);
          for (let p = 1; p < parts; p++) sum = f32x4.add(sum, load(at, p * part + offset));
          return sum;
        };
        emitSquare(
          f,
          transposed(F4.g),
          fetch,
          (i, j, value) => f.store(out, (3 * i + j) * stride, value),
        );
        f.increase(out, 16);
      });
    },
  };
}
