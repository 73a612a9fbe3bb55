/**
 * Filters of minimal filtering, into frequencies and back.
 *
 * @module
 */

import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { F4, transposed } from "../winograd.ts";
import { add, f32, f32x4, i32, load, loadSplat, mul, type Operand } from "./assembler.ts";
import { panelWidth } from "./gemm.ts";
import { pointAt, pointFrom, pointTo, type WasmKernel, type WasmTarget } from "./kernel.ts";
import { emitSquare, FREQUENCIES, N, SKEW } from "./tiles.ts";

/** Bytes between the frequencies of filters. */
export const filterStride = (channels: number, outChannels: number): number =>
  4 * channels * outChannels + SKEW;

/** G w Gᵀ as panels [frequency][out / width][in][width]. */
export function transformWeights(
  w: Tensor,
  channels: number,
  outChannels: number,
  isTurned: boolean,
  { pair }: WasmTarget,
): { kernel: WasmKernel; weights: Scratch } {
  const panel = panelWidth(pair), stride = 4 * channels * outChannels;
  const skewed = filterStride(channels, outChannels);
  const weights = new Scratch(FREQUENCIES * skewed / 4);
  const kernel: WasmKernel = {
    label: "conv2d, weights",
    key: `winograd w ${channels} ${outChannels} ${isTurned} ${pair}`,
    pointers: [pointTo(w), pointAt(weights)],
    tasks: outChannels / panel,
    scratch: 0,
    build(f, task, [from, to]) {
      const first = f.integer(mul(task, panel)), at = f.local("i32"), c = f.local("i32");
      const out = f.integer(add(to, mul(first, 4 * channels)));
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
      f.set(c, 0);
      f.loop(c, channels, 1, () => {
        const step = isTurned
          ? add(mul(first, 4 * channels), mul(c, 4))
          : add(mul(c, 4 * outChannels), mul(first, 4));
        f.set(at, add(from, step));
        f.repeat(panel / 4, () => {
          emitSquare(f, F4.g, fetch, (i, j, value) => f.store(out, (i * N + j) * skewed, value));
          f.increase(at, isTurned ? 16 * channels : 16);
          f.increase(out, 16);
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
  const stride = 4 * channels * outChannels, skewed = filterStride(channels, outChannels);
  const part = FREQUENCIES * skewed;
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
          const offset = (i * N + j) * skewed;
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
