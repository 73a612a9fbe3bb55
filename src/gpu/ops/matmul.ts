/**
 * Matrix products, {@linkcode matmul}, over any number of batch axes. Transposed operands are
 * permuted views: the kernels fetch along whichever axis is contiguous.
 *
 * @module
 */

import type { Fused } from "../compile/loop.ts";
import type { Op } from "../op.ts";
import { formatShape, sameShape, sizeOf } from "../../shape.ts";
import { apply, type HostArray, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";
import { generateTile, type Product, type Source } from "../wgsl/gemm.ts";
import { lowerMatmul as lowerOnCpu } from "../wasm/matmul.ts";
import { FusedWork } from "../wgsl/elementwise.ts";
import { type Binding, bindRange, type Kernel, loadFour, type WgslTarget } from "../wgsl/kernel.ts";
import { splitSum } from "../wgsl/split_k.ts";
import { add } from "./map.ts";
import { isTransposed, permute, reshape, transpose } from "./view.ts";

const matmulOp: Op<Record<never, never>> = {
  name: "matmul",
  infer([a, b]) {
    const [m, k] = a.shape.slice(-2), [k2, n] = b.shape.slice(-2);
    const batch = a.shape.slice(0, -2);
    if (a.shape.length < 2 || k !== k2 || !sameShape(batch, b.shape.slice(0, -2))) {
      throw new RangeError(
        `Cannot multiply matrices ${formatShape(a.shape)} and ${formatShape(b.shape)}`,
      );
    }
    return { shape: [...batch, m, n] };
  },
  reference: ({ inputs: [x], shape }, [a, b], out) => {
    const [m, n] = shape.slice(-2), k = x.shape.at(-1)!;
    for (let batch = 0; batch < sizeOf(shape) / (m * n); batch++) {
      multiply(
        a.subarray(batch * m * k, (batch + 1) * m * k),
        b.subarray(batch * k * n, (batch + 1) * k * n),
        out.subarray(batch * m * n, (batch + 1) * m * n),
        k,
        n,
      );
    }
  },
  // Gradients lie as the operands do, so that transposing them back moves nothing.
  gradient: ({ inputs: [a, b] }, g, needed) => [
    needed[0] ? productLike(a, g, transpose(b)) : undefined,
    needed[1] ? productLike(b, transpose(a), g) : undefined,
  ],
  flops: ({ shape, inputs: [a] }) => 2 * sizeOf(shape) * a.shape.at(-1)!,
  acceptsView: (view, shape) =>
    view.strides.slice(-2).some((s, i) => s === 1 || shape.at(i - 2) === 1) &&
    batchAxes(view.strides, shape).length <= 2,
  variants: [{ name: "tile", fuses: { input: false, output: true }, lower: lowerMatmul }],
  halves: { reads: true, writes: true },
  wasm: lowerOnCpu,
  fuses: { input: false, output: "rows" },
  cases: [
    { name: "odd sizes", inputs: [{ shape: [3, 7] }, { shape: [7, 5] }], build: matmul },
    { name: "one row", inputs: [{ shape: [1, 12] }, { shape: [12, 8] }], build: matmul },
    { name: "one column", inputs: [{ shape: [8, 12] }, { shape: [12, 1] }], build: matmul },
    { name: "fours", inputs: [{ shape: [36, 20] }, { shape: [20, 44] }], build: matmul },
    {
      name: "batch",
      inputs: [{ shape: [3, 49, 8] }, { shape: [3, 8, 49] }],
      build: matmul,
    },
    {
      name: "transposed",
      inputs: [{ shape: [2, 40, 36] }, { shape: [2, 52, 36] }],
      build: (a, b) => matmul(a, transpose(b)),
    },
    {
      name: "other transposed, long sum",
      inputs: [{ shape: [300, 8] }, { shape: [300, 12] }],
      build: (a, b) => matmul(transpose(a), b),
    },
    {
      name: "both transposed, odd",
      inputs: [{ shape: [7, 5] }, { shape: [6, 7] }],
      build: (a, b) => matmul(transpose(a), transpose(b)),
    },
    {
      name: "a dense layer",
      inputs: [{ shape: [2, 5, 12] }, { shape: [8, 12] }, { shape: [8] }],
      build: linear,
    },
    {
      name: "heads in the middle",
      inputs: [{ shape: [2, 10, 24] }, { shape: [2, 10, 24] }],
      build: (a, b) => matmul(splitHeads(a, 3), transpose(splitHeads(b, 3))),
    },
  ],
};

/** `out += a b` for dense matrices; rows of b are walked in order, which caches like. */
function multiply(a: HostArray, b: HostArray, out: HostArray, k: number, n: number): void {
  const sums = new Float64Array(n);
  for (let row = 0; row * n < out.length; row++) {
    sums.fill(0);
    for (let i = 0; i < k; i++) {
      const x = a[row * k + i];
      for (let j = 0, at = i * n; j < n; j++) sums[j] += x * b[at + j];
    }
    out.set(sums, row * n);
  }
}

/** Matrix product of the last two axes: `[..., m, k]` by `[..., k, n]`. */
export function matmul(a: Tensor, b: Tensor): Tensor {
  return apply(matmulOp, [a, b], {});
}

/** A product, transposed in memory if `x` is. */
const productLike = (x: Tensor, a: Tensor, b: Tensor): Tensor =>
  isTransposed(x) ? transpose(matmul(transpose(b), transpose(a))) : matmul(a, b);

/** Dense layer: `[..., in]` by weights `[out, in]`, plus a bias `[out]`. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const rows = reshape(x, [sizeOf(x.shape.slice(0, -1)), x.shape.at(-1)!]);
  const product = matmul(rows, transpose(weight));
  const shaped = reshape(product, [...x.shape.slice(0, -1), weight.shape[0]]);
  return bias ? add(shaped, bias) : shaped;
}

/** Batch axes of a view, those merged that are walked as one. */
function batchAxes(strides: readonly number[], shape: readonly number[]) {
  const axes: { size: number; stride: number }[] = [];
  for (let i = 0; i < shape.length - 2; i++) {
    if (shape[i] === 1) continue;
    const last = axes.at(-1);
    if (last && last.stride === strides[i] * shape[i]) {
      axes[axes.length - 1] = { size: last.size * shape[i], stride: strides[i] };
    } else axes.push({ size: shape[i], stride: strides[i] });
  }
  return axes;
}

/** One operand: how it is bound and fetched. `index` is the axis that rows or columns walk. */
function operand(name: "a" | "b", tensor: Tensor) {
  const { strides } = resolve(tensor);
  const [rowStride, columnStride] = strides.slice(-2), [rows, columns] = tensor.shape.slice(-2);
  const [index, k] = name === "a" ? [rowStride, columnStride] : [columnStride, rowStride];
  const [indices, ks] = name === "a" ? [rows, columns] : [columns, rows];
  const isAlong = k === 1 || ks === 1;
  const [run, jump] = isAlong ? [ks, index] : [indices, k];
  const batch = [...batchAxes(strides, tensor.shape), { size: 1, stride: 0 }, {
    size: 1,
    stride: 0,
  }];
  const [outer, inner] = batch.length === 4 ? batch : [batch[1], batch[0]];
  const range = bindRange(name, tensor);
  const isVector = [run, jump, outer.stride, inner.stride, range.start].every((n) => n % 4 === 0);
  return { isAlong, isVector, jump, outer, inner, ...range };
}

function source(binding: Binding, isAlong: boolean): Source {
  const { name, vector: isVector } = binding, four = (at: string) => loadFour(binding, at);
  // The last four k of an odd sum: A counts as zero there, and B only has to be finite.
  const masked = name === "a" && !isVector;
  return {
    layout: isAlong ? "along" : "across",
    prepare: (slot, index) =>
      `let i${slot} = ${name}_start + ${isAlong ? `(${index}) * u.${name}_jump` : index};`,
    fetch: (slot, step) => {
      if (isAlong) {
        const value = four(`i${slot} + k`);
        return masked
          ? `select(vec4f(), ${value}, vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(end))`
          : value;
      }
      const value = four(`i${slot} + (k + ${step.value}) * u.${name}_jump`);
      return masked || name === "a" ? `select(vec4f(), ${value}, k + ${step.value} < end)` : value;
    },
  };
}

function lowerMatmul(node: Tensor, target: WgslTarget, fused: Fused): Kernel[] {
  const [x, w] = node.inputs, [m, n] = node.shape.slice(-2), k = x.shape.at(-1)!;
  const batch = sizeOf(node.shape.slice(0, -2));
  const a = operand("a", x), b = operand("b", w);
  const isVector = a.isVector && b.isVector && n % 4 === 0 && (a.isAlong || m % 4 === 0);
  const operands = [a, b].map(({ binding }) => ({ ...binding, vector: isVector }));
  const product: Product = {
    size: [m, n, batch],
    rows: "m",
    columns: "n",
    a: source(operands[0], a.isAlong),
    b: source(operands[1], b.isAlong),
    begin: `let batch = group.z / u.parts; let part = group.z % u.parts;
let a_start = u.a_start + batch / u.a_inner * u.a_outer_stride + batch % u.a_inner * u.a_inner_stride;
let b_start = u.b_start + batch / u.b_inner * u.b_outer_stride + batch % u.b_inner * u.b_inner_stride;
var k = part * u.chunk; let end = min(k + u.chunk, u.k);`,
    condition: "k < end",
    advance: "k += 4u;",
    place: (row, column) => `((part * u.batch + batch) * u.m + ${row}) * u.n + ${column}`,
    vector: isVector,
  };
  const { rows, columns } = generateTile(product, target);
  const tiles = Math.ceil(m / rows) * Math.ceil(n / columns);
  return splitSum("matmul", node, k, tiles * batch, target, (y, parts, chunk) => {
    const work = new FusedWork(y, parts === 1 ? fused : {}, isVector);
    return work.kernel({
      label: "matmul",
      bindings: operands,
      uniforms: {
        m,
        n,
        k,
        batch,
        parts,
        chunk,
        ...{ a_start: a.start, a_jump: a.jump, a_inner: a.inner.size },
        ...{ a_inner_stride: a.inner.stride, a_outer_stride: a.outer.stride },
        ...{ b_start: b.start, b_jump: b.jump, b_inner: b.inner.size },
        ...{ b_inner_stride: b.inner.stride, b_outer_stride: b.outer.stride },
      },
      ...generateTile({ ...product, finish: work.finish }, target).code(work.result),
      workgroups: [Math.ceil(n / columns), Math.ceil(m / rows), batch * parts],
    });
  }, fused.output);
}

/** `[batch, length, heads * size]` as `[batch, heads, length, size]`. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, length, channels] = x.shape;
  return permute(reshape(x, [batch, length, heads, channels / heads]), [0, 2, 1, 3]);
}

/** All operations of this file. */
export const matmulOps: readonly Op[] = [matmulOp];
