/**
 * What an adapter can do at the most: {@linkcode fma} only multiplies and adds, {@linkcode copy} only
 * moves memory. Their best variants are the ceilings that everything else is measured against.
 *
 * @module
 */

import type { Op } from "../src/gpu/op.ts";
import { sizeOf } from "../src/shape.ts";
import { apply, type Tensor } from "../src/gpu/tensor.ts";
import { add, f32x4, i32, load, loadSplat, mul } from "../src/gpu/wasm/assembler.ts";
import { pointAt, pointTo } from "../src/gpu/wasm/kernel.ts";
import { bind, bindInput, makeKernel, type Variant } from "../src/gpu/wgsl/kernel.ts";

const count = (n: number) => [...Array(n).keys()];

/** Chains of sums and products that an invocation or task works on side by side. */
const WGSL_CHAINS = [4, 8, 16], WASM_CHAINS = 12;
/** Links of each chain between two tests of the loop's end. */
const UNROLLED = 8;
/** Four numbers that a chain works on: multiplications and additions of a link. */
const LINK_FLOPS = 8;

/** One chain of fused multiplications and additions for each `WGSL_CHAINS` of every four elements. */
const fmaVariant = (chains: number): Variant<{ rounds: number }> => ({
  name: `${chains} chains`,
  lower(node, { lanes }) {
    const [x] = node.inputs, { rounds } = node.attributes;
    const links = 16 / chains * UNROLLED;
    return [makeKernel({
      label: `fma, ${chains} chains`,
      bindings: [bindInput("x", x, true), bind("y", node, { vector: true, write: true })],
      uniforms: { rounds },
      lanes,
      body: `let i = group.x * ${lanes}u + lane;
let by = x[0]; let plus = x[1]; let start = x[i];
${count(chains).map((c) => `var a${c} = start + ${c}.5;`).join("\n")}
for (var round = 0u; round < u.rounds; round++) {
${count(links).flatMap(() => count(chains).map((c) => `a${c} = fma(a${c}, by, plus);`)).join("\n")}
}
y[i] = ${count(chains).map((c) => `a${c}`).join(" + ")};`,
      workgroups: [sizeOf(node.shape) / 4 / lanes, 1, 1],
    })];
  },
});

const fmaOp: Op<{ rounds: number }> = {
  name: "fma",
  infer: ([x]) => ({ shape: x.shape }),
  flops: ({ shape, attributes: { rounds } }) =>
    sizeOf(shape) / 4 * rounds * 16 * UNROLLED * LINK_FLOPS,
  variants: WGSL_CHAINS.map(fmaVariant),
  wasm(node, { pair }) {
    const [x] = node.inputs, { rounds } = node.attributes, tasks = 64;
    const chains = WASM_CHAINS * pair, bytes = 16 * chains;
    // As many links in all as the variants for GPUs have.
    const links = sizeOf(node.shape) / 4 * rounds * 16 / chains / tasks;
    return [{
      label: "fma",
      key: `fma ${links} ${chains}`,
      pointers: [pointTo(x), pointAt(node)],
      tasks,
      scratch: 0,
      build(f, task, [from, to]) {
        const by = f.vector(loadSplat(from, 0)), plus = f.vector(loadSplat(from, 4));
        const sums = count(chains).map((c) => f.vector(load(from, 16 * c)));
        f.repeat(Math.ceil(links), () => {
          for (let i = 0; i < UNROLLED; i++) {
            for (const sum of sums) f.set(sum, f32x4.madd(sum, by, plus));
          }
        });
        const at = f.integer(add(to, mul(task, bytes)));
        sums.forEach((sum, c) => f.store(at, 16 * c, sum));
      },
    }];
  },
};

/** Every invocation moves `each` vectors, a workgroup apart. */
const copyVariant = (each: number, lanes: number): Variant => ({
  name: `${each} by each of ${lanes}`,
  when: ({ shape }) => sizeOf(shape) / 4 / each / lanes <= 65535,
  lower: (node) => [makeKernel({
    label: "copy",
    bindings: [
      bindInput("x", node.inputs[0], true),
      bind("y", node, { vector: true, write: true }),
    ],
    uniforms: {},
    lanes,
    body: `let first = group.x * ${each}u * ${lanes}u + lane;
for (var i = 0u; i < ${each}u; i++) { y[first + i * ${lanes}u] = x[first + i * ${lanes}u]; }`,
    workgroups: [sizeOf(node.shape) / 4 / each / lanes, 1, 1],
  })],
});

const copyOp: Op = {
  name: "copy",
  infer: ([x]) => ({ shape: x.shape }),
  variants: [
    copyVariant(256, 8),
    copyVariant(64, 64),
    copyVariant(4, 256),
    copyVariant(16, 256),
  ],
  wasm(node) {
    const tasks = 64, bytes = 4 * sizeOf(node.shape) / tasks;
    return [{
      label: "copy",
      key: `copy ${bytes}`,
      pointers: [pointTo(node.inputs[0]), pointAt(node)],
      tasks,
      scratch: 0,
      build(f, task, [from, to]) {
        const x = f.integer(add(from, mul(task, bytes))), y = f.integer(add(to, mul(task, bytes)));
        const end = f.integer(add(x, bytes));
        f.doWhile(() => {
          for (const i of count(4)) f.store(y, 16 * i, load(x, 16 * i));
          f.increase(x, 64);
          f.increase(y, 64);
        }, () => i32.lt(x, end));
      },
    }];
  },
};

/** Multiplies and adds, 128 times `rounds` for every element. */
export const fma = (x: Tensor, rounds: number): Tensor => apply(fmaOp, [x], { rounds });

/** Moves memory. */
export const copy = (x: Tensor): Tensor => apply(copyOp, [x], {});
