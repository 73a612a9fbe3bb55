/**
 * Attention and its gradients without a matrix of scores (the idea of FlashAttention, Dao et al.
 * 2022).
 *
 * Softmax over tiles of scores needs the largest of a row and the sum of its exponentials so far;
 * what came before is scaled when a larger one turns up (Milakov and Gimelshein 2018). These two
 * numbers a query are kept, and from them the gradients find the probabilities again. Kept as one,
 * they would lose digits that large scores need.
 *
 * @module
 */

import type { Tensor } from "../tensor.ts";
import { range, tileNames } from "./gemm.ts";
import { bind, type Binding, BINDING_ALIGNMENT, bindInput, load } from "./kernel.ts";
import type { Kernel, Variant, WgslTarget } from "./kernel.ts";
import { type AttentionSizes, attentionSizes } from "../attention_sizes.ts";
import { AttentionKernel, type Side } from "./attention_tiles.ts";

/** Scores that are too many to be kept anywhere. */
const MOST_SCORES = 2 ** 26;
/** As many vectors of a row of the results a lane can own: more would not fit its registers. */
const MAX_GROUPS = 8;

/** Where the second part of a flat tensor of two starts, so that it can be bound. */
export const secondPart = (first: number): number =>
  Math.ceil(first / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;

/** Bindings of the two parts of a flat result. */
function bindParts(node: Tensor, names: readonly [string, string], first: number): Binding[] {
  const offset = secondPart(first), whole = bind("", node, { write: true });
  return [
    { ...whole, name: names[0], length: first },
    { ...whole, name: names[1], offset, length: whole.length - offset },
  ];
}

/** The largest tile that a device is kept busy with, and with which `columns` can be owned. */
function chooseSide(
  { tile, workgroups }: WgslTarget,
  { batch }: AttentionSizes,
  rows: number,
  columns: number,
): Side {
  if (columns > MAX_GROUPS * 32) return 64;
  if (tile) return tile === "32x32" ? 32 : 64;
  return batch * Math.ceil(rows / 64) >= workgroups / 4 ? 64 : 32;
}

/** Numbers a query, of the four rows of a lane. */
const ofRows = (binding: Binding, of = 1, i = 0): string => {
  const row = (r: number) => `batch * u.queries + min(row + ${r}u, u.queries - 1u)`;
  return `vec4f(${range(4).map((r) => load(binding, `(${row(r)}) * ${of}u + ${i}u`))})`;
};

/** A number a query, of a column of scores. */
const ofColumn = (binding: Binding, column: string, of = 1, i = 0): string =>
  load(binding, `(batch * u.queries + min(${column}, u.queries - 1u)) * ${of}u + ${i}u`);

/** The result, and for each query the largest score and the logarithm of the sum. */
function lowerForward(node: Tensor, target: WgslTarget): Kernel[] {
  const sizes = attentionSizes(node.inputs), { batch, queries, width } = sizes;
  const side = chooseSide(target, sizes, queries, width);
  const kernel = new AttentionKernel(node.inputs, "queries", side, ["q", "k", "v"]);
  const [y, moments] = bindParts(node, ["y", "moments"], batch * queries * width);
  const least = "vec4f(-3.4028234e38f)";
  return [kernel.make("attention", [y], [moments], [
    `var most = ${least}; var total = vec4f();`,
    ...kernel.accumulators("y", width),
    ...kernel.walk([
      ...kernel.products("s", "q", "k"),
      ...range(4).map((j) => `s${j} = select(s${j} * scale, ${least}, ${kernel.isBeyond(j)});`),
      ...kernel.combine("top", "max(max(s0, s1), max(s2, s3))", (a, b) => `max(${a}, ${b})`),
      "top = max(top, most); let decay = exp_accurate(most - top); most = top;",
      ...range(4).map((j) =>
        `let p${j} = select(exp_accurate(s${j} - top), vec4f(), ${kernel.isBeyond(j)});`
      ),
      "total = total * decay + ((p0 + p1) + (p2 + p3));",
      ...kernel.scale("y", width, "decay"),
      ...kernel.spread("y", "p", "v"),
    ]),
    ...kernel.combine("sum", "total", (a, b) => `${a} + ${b}`),
    "let weight = 1.0 / sum; let logarithm = log_accurate(sum);",
    ...kernel.scale("y", width, "weight"),
    ...kernel.store("y", "width"),
    ...range(4).flatMap((i) => [
      `if (lx == 0u && row + ${i}u < u.queries) { let to = (batch * u.queries + row + ${i}u) * 2u;`,
      `moments[to] = most[${i}]; moments[to + 1u] = logarithm[${i}]; }`,
    ]),
  ])];
}

/** Inputs of the gradients with numbers a query: those that were kept, and g · y. */
const bindQueries = ({ inputs }: Tensor): Binding[] => [
  bindInput("moments", inputs[4]),
  bindInput("deltas", inputs[5]),
];

/** The gradient by the queries. */
function lowerQueryGrad(node: Tensor, target: WgslTarget): Kernel[] {
  const sizes = attentionSizes(node.inputs), { queries, size } = sizes;
  const side = chooseSide(target, sizes, queries, size);
  const kernel = new AttentionKernel(node.inputs, "queries", side, ["q", "k", "v", "g"]);
  const result = bind("dq", node, { write: true }), [moments, deltas] = bindQueries(node);
  return [kernel.make("attention, gradient by queries", [result], [moments, deltas], [
    `let top = ${ofRows(moments, 2)}; let logarithm = ${ofRows(moments, 2, 1)};`,
    `let delta = ${ofRows(deltas)};`,
    ...kernel.accumulators("dq", size),
    ...kernel.walk([
      ...kernel.products("s", "q", "k"),
      ...kernel.products("dp", "g", "v"),
      ...range(4).flatMap((j) => [
        `let p${j} = exp_accurate((s${j} * scale - top) - logarithm);`,
        `let ds${j} = select(p${j} * (dp${j} - delta), vec4f(), ${kernel.isBeyond(j)});`,
      ]),
      ...kernel.spread("dq", "ds", "k"),
    ]),
    ...kernel.scale("dq", size, "vec4f(scale)"),
    ...kernel.store("dq", "size"),
  ])];
}

/** The gradients by keys and values, each by itself if a lane cannot own both. */
function lowerKeyGrads(node: Tensor, target: WgslTarget): Kernel[] {
  const sizes = attentionSizes(node.inputs), { batch, keys, size, width } = sizes;
  const [dk, dv] = bindParts(node, ["dk", "dv"], batch * keys * size);
  const [moments, deltas] = bindQueries(node);
  const lower = (label: string, results: readonly Binding[], columns: number) => {
    const byKeys = results.includes(dk), byValues = results.includes(dv);
    const side = chooseSide(target, sizes, keys, columns);
    const read = byKeys ? ["q", "k", "v", "g"] as const : ["q", "k", "g"] as const;
    const kernel = new AttentionKernel(node.inputs, "keys", side, read);
    const moment = (j: number, i: number) => ofColumn(moments, kernel.column(j), 2, i);
    return kernel.make(label, results, byKeys ? [moments, deltas] : [moments], [
      ...(byKeys ? kernel.accumulators("dk", size) : []),
      ...(byValues ? kernel.accumulators("dv", width) : []),
      ...kernel.walk([
        ...kernel.products("s", "k", "q"),
        ...range(4).map((j) =>
          `let p${j} = select(exp_accurate((s${j} * scale - ${moment(j, 0)}) - ${moment(j, 1)}), ` +
          `vec4f(), ${kernel.isBeyond(j)});`
        ),
        ...(byValues ? kernel.spread("dv", "p", "g") : []),
        ...(byKeys
          ? [
            ...kernel.products("dp", "v", "g"),
            ...range(4).map((j) =>
              `let ds${j} = p${j} * (dp${j} - ${ofColumn(deltas, kernel.column(j))});`
            ),
            ...kernel.spread("dk", "ds", "q"),
          ]
          : []),
      ]),
      ...(byKeys
        ? [...kernel.scale("dk", size, "vec4f(scale)"), ...kernel.store("dk", "size")]
        : []),
      ...(byValues ? kernel.store("dv", "width") : []),
    ]);
  };
  return size + width > MAX_GROUPS * 64
    ? [
      lower("attention, gradient by keys", [dk], size),
      lower("attention, gradient by values", [dv], width),
    ]
    : [lower("attention, gradients by keys and values", [dk, dv], size + width)];
}

/**
 * It pays where the scores would be more numbers than everything that goes in and comes out; where
 * they are fewer, products by their own tiles compute less. What goes through workgroup memory is for
 * CPUs that pose as GPUs only where a matrix of scores would take too much memory.
 */
const variant = (lower: (node: Tensor, target: WgslTarget) => Kernel[]): Variant => ({
  name: "fused",
  when({ inputs }, target) {
    const { batch, queries, keys, size, width } = attentionSizes(inputs);
    const most = Math.min(MOST_SCORES, target.maxBindingElements);
    return Math.max(size, width) <= MAX_GROUPS * 64 &&
      (!tileNames(target).includes("subgroup") || batch * queries * keys > most);
  },
  pays({ inputs }) {
    const { queries, keys, size, width } = attentionSizes(inputs);
    return queries * keys > (queries + keys) * (size + width);
  },
  lower,
});

export const forwardVariant: Variant = variant(lowerForward);
export const queryGradVariant: Variant = variant(lowerQueryGrad);
export const keyGradsVariant: Variant = variant(lowerKeyGrads);
