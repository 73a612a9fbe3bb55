/**
 * Attention, {@linkcode attention}. Targets that can compute it without a matrix of scores do so
 * where that pays; elsewhere it is two products and a softmax, and its gradients are theirs.
 *
 * @module
 */

import { type AttentionSizes, attentionSizes } from "../attention_sizes.ts";
import { grad } from "../grad.ts";
import type { Op } from "../op.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../../shape.ts";
import { apply, type HostArray, type Tensor } from "../tensor.ts";
import { attentionPays, lowerAttention } from "../wasm/attention.ts";
import {
  forwardVariant,
  keyGradsVariant,
  queryGradVariant,
  secondPart,
} from "../wgsl/attention.ts";
import { isWalkable } from "../wgsl/attention_tiles.ts";
import { viewOf } from "./concat.ts";
import { mul } from "./map.ts";
import { matmul, splitHeads } from "./matmul.ts";
import { softmax, softmaxGrad } from "./softmax.ts";
import { sum } from "./sum.ts";
import { transpose } from "./view.ts";

type None = Record<never, never>;

const scaleOf = (q: Tensor) => 1 / Math.sqrt(q.shape.at(-1)!);

/** The probabilities of keys for each query. */
const probabilities = (q: Tensor, k: Tensor): Tensor =>
  softmax(matmul(q, transpose(k)), scaleOf(q));

/** The shape of the result. */
function shapeOf([q, k, v]: readonly Tensor[]): Shape {
  const batch = q.shape.slice(0, -2), [keys, width] = v.shape.slice(-2);
  const fits = q.shape.length > 1 && sameShape(k.shape, [...batch, keys, q.shape.at(-1)!]) &&
    sameShape(v.shape, [...batch, keys, width]);
  if (!fits) {
    const shapes = [q, k, v].map((x) => formatShape(x.shape)).join(", ");
    throw new RangeError(
      `Cannot attend with ${shapes}: they must be [..., queries, size], [..., keys, size] and ` +
        "[..., keys, width]",
    );
  }
  return q.shape.with(-1, width);
}

/** Floating point operations of a product with all scores. */
const perScore = (inputs: readonly Tensor[], columns: (sizes: AttentionSizes) => number) => {
  const sizes = attentionSizes(inputs);
  return 2 * sizes.batch * sizes.queries * sizes.keys * columns(sizes);
};

/** Calls `visit` with every query, and its scores. */
function eachQuery(
  { batch, queries, keys, size }: AttentionSizes,
  [q, k]: readonly HostArray[],
  visit: (query: number, scores: Float64Array, firstKey: number) => void,
): void {
  const scores = new Float64Array(keys), scale = 1 / Math.sqrt(size);
  for (let i = 0; i < batch * queries; i++) {
    const first = Math.floor(i / queries) * keys;
    for (let j = 0; j < keys; j++) {
      let total = 0;
      for (let c = 0; c < size; c++) total += q[i * size + c] * k[(first + j) * size + c];
      scores[j] = total * scale;
    }
    visit(i, scores, first);
  }
}

/** Writes the result, and for each query the largest score and the logarithm of the sum. */
function attendOnHost(
  sizes: AttentionSizes,
  [q, k, v]: readonly HostArray[],
  out: HostArray,
  moments: HostArray,
): void {
  const { width } = sizes, row = new Float64Array(width);
  eachQuery(sizes, [q, k], (query, scores, first) => {
    const top = scores.reduce((a, b) => Math.max(a, b));
    const total = scores.reduce((sum, s) => sum + Math.exp(s - top), 0);
    row.fill(0);
    scores.forEach((s, j) => {
      const p = Math.exp(s - top) / total;
      for (let c = 0; c < width; c++) row[c] += p * v[(first + j) * width + c];
    });
    out.set(row, query * width);
    moments.set([top, Math.log(total)], 2 * query);
  });
}

/**
 * The gradients by queries, keys and values.
 *
 * @param inputs All three, the gradient by the result, what was kept of each query, and the inner
 * products of the rows of gradient and result.
 */
function gradientsOnHost(sizes: AttentionSizes, inputs: readonly HostArray[]): Float64Array[] {
  const [q, k, v, g, moments, deltas] = inputs, { size, width } = sizes;
  const [dq, dk, dv] = [q, k, v].map((x) => new Float64Array(x.length));
  const scale = 1 / Math.sqrt(size);
  eachQuery(sizes, [q, k], (query, scores, first) => {
    scores.forEach((s, j) => {
      const p = Math.exp(s - moments[2 * query] - moments[2 * query + 1]), key = first + j;
      let dp = 0;
      for (let c = 0; c < width; c++) {
        dp += g[query * width + c] * v[key * width + c];
        dv[key * width + c] += p * g[query * width + c];
      }
      const ds = p * (dp - deltas[query]) * scale;
      for (let c = 0; c < size; c++) {
        dq[query * size + c] += ds * k[key * size + c];
        dk[key * size + c] += ds * q[query * size + c];
      }
    });
  });
  return [dq, dk, dv];
}

const attentionOp: Op<None> = {
  name: "attention",
  infer: (inputs) => ({ shape: shapeOf(inputs) }),
  reference({ inputs }, arrays, out) {
    const sizes = attentionSizes(inputs);
    attendOnHost(sizes, arrays, out, new Float64Array(2 * sizes.batch * sizes.queries));
  },
  flops: ({ inputs }) => perScore(inputs, ({ size, width }) => size + width),
  gradient({ inputs }, g, needed) {
    const gradient = (by: number) =>
      needed[by] ? apply(gradientOp, [...inputs, g], { by }) : undefined;
    // That by the values first: it needs least at a time.
    const dv = gradient(2);
    return [gradient(0), gradient(1), dv];
  },
  expand(node, computes) {
    if (computes(node)) return undefined;
    const { inputs } = node, fused = apply(fusedOp, inputs, {}), [q, k, v] = inputs;
    return computes(fused) ? partsOf(fused).y : matmul(probabilities(q, k), v);
  },
  acceptsView: () => true,
  wasm: lowerAttention,
  wasmPays: attentionPays,
  cases: [
    {
      name: "heads in the middle",
      inputs: [{ shape: [2, 70, 16] }, { shape: [2, 70, 16] }, { shape: [2, 70, 16] }],
      build: (...inputs) => {
        const [q, k, v] = inputs.map((x) => splitHeads(x, 2));
        return attention(q, k, v);
      },
    },
    {
      name: "odd sizes, other keys than queries",
      inputs: [{ shape: [3, 37, 5] }, { shape: [3, 83, 5] }, { shape: [3, 83, 3] }],
      build: attention,
    },
    {
      name: "large scores",
      inputs: [
        { shape: [40, 1], range: [-22, 22] },
        { shape: [33, 1], range: [-22, 22] },
        { shape: [33, 4] },
      ],
      build: attention,
    },
    {
      name: "few keys",
      inputs: [{ shape: [1, 2, 5, 12] }, { shape: [1, 2, 1, 12] }, { shape: [1, 2, 1, 8] }],
      build: attention,
    },
  ],
};

/** One of its gradients, given queries, keys, values and the gradient by the result. */
const gradientOp: Op<{ by: number }> = {
  name: "attention_grad",
  infer: (inputs, { by }) => ({ shape: inputs[by].shape }),
  reference({ inputs, attributes: { by } }, arrays, out) {
    const sizes = attentionSizes(inputs), { batch, queries, width } = sizes, g = arrays[3];
    const y = new Float64Array(g.length), moments = new Float64Array(2 * batch * queries);
    attendOnHost(sizes, arrays, y, moments);
    const deltas = new Float64Array(batch * queries);
    y.forEach((v, i) => deltas[Math.floor(i / width)] += v * g[i]);
    out.set(gradientsOnHost(sizes, [...arrays, moments, deltas])[by]);
  },
  flops: ({ inputs, attributes: { by } }) =>
    perScore(inputs, ({ size, width }) => [size + width, size, width][by]),
  expand({ inputs, attributes: { by } }, computes) {
    const [q, k, v, g] = inputs, fused = apply(fusedOp, [q, k, v], {});
    if (computes(fused)) {
      const { y, moments } = partsOf(fused), deltas = sum(mul(g, y), [g.shape.length - 1]);
      const given = [...inputs, moments, deltas];
      if (by === 0) return apply(fusedQueryGradOp, given, {});
      const both = apply(fusedKeyGradsOp, given, {});
      return viewOf(both, by === 1 ? 0 : secondPart(sizeOf(k.shape)), inputs[by].shape);
    }
    return plainGradient(inputs, by);
  },
  // Gradients of gradients are those of the products.
  gradient({ inputs, attributes: { by } }, g, needed) {
    const tensors = [...new Set(inputs)];
    const gradients = grad(sum(mul(plainGradient(inputs, by), g)), tensors);
    return inputs.map((x, i) =>
      needed[i] && inputs.indexOf(x) === i ? gradients[tensors.indexOf(x)] : undefined
    );
  },
  cases: ["queries", "keys", "values"].map((name, by) => ({
    name: `by ${name}`,
    inputs: [{ shape: [2, 3, 4] }, { shape: [2, 5, 4] }, { shape: [2, 5, 3] }, {
      shape: [2, 3, 3],
    }],
    build: (...inputs) => apply(gradientOp, inputs, { by }),
  })),
};

/** The same by products; what it shares with the result by products is computed once. */
function plainGradient([q, k, v, g]: readonly Tensor[], by: number): Tensor {
  const p = probabilities(q, k);
  if (by === 2) return matmul(transpose(p), g);
  const ds = softmaxGrad(p, matmul(g, transpose(v)), scaleOf(q));
  return by === 0 ? matmul(ds, k) : transpose(matmul(transpose(q), ds));
}

/** Elements of a flat tensor of two parts, of which the second can be bound. */
const flat = (first: number, second: number) => ({ shape: [secondPart(first) + second] });

/** The result, and what gradients want to know of each query, one behind the other. */
const fusedOp: Op<None> = {
  name: "fused_attention",
  infer(inputs) {
    const shape = shapeOf(inputs);
    return flat(sizeOf(shape), 2 * sizeOf(shape.slice(0, -1)));
  },
  reference({ inputs }, arrays, out) {
    const start = secondPart(sizeOf(shapeOf(inputs)));
    attendOnHost(attentionSizes(inputs), arrays, out, out.subarray(start));
  },
  flops: attentionOp.flops!,
  acceptsView: isWalkable,
  variants: [forwardVariant],
  halves: { reads: true, writes: false },
};

/** The parts of that: the result, and for each query the largest score and the logarithm of the sum. */
function partsOf(fused: Tensor): { y: Tensor; moments: Tensor } {
  const shape = shapeOf(fused.inputs), start = secondPart(sizeOf(shape));
  return { y: viewOf(fused, 0, shape), moments: viewOf(fused, start, shape.with(-1, 2)) };
}

/** The gradient by the queries. */
const fusedQueryGradOp: Op<None> = {
  name: "fused_attention_query_grad",
  infer: ([q]) => ({ shape: q.shape }),
  reference: ({ inputs }, arrays, out) =>
    out.set(gradientsOnHost(attentionSizes(inputs), arrays)[0]),
  flops: ({ inputs }) => perScore(inputs, ({ size, width }) => size + width),
  acceptsView: isWalkable,
  variants: [queryGradVariant],
  halves: { reads: true, writes: false },
};

/** The gradients by keys and values, one behind the other. */
const fusedKeyGradsOp: Op<None> = {
  name: "fused_attention_key_grads",
  infer: ([, k, v]) => flat(sizeOf(k.shape), sizeOf(v.shape)),
  reference({ inputs }, arrays, out) {
    const [, dk, dv] = gradientsOnHost(attentionSizes(inputs), arrays);
    out.set(dk);
    out.set(dv, secondPart(dk.length));
  },
  flops: ({ inputs }) => perScore(inputs, ({ size, width }) => size + width),
  acceptsView: isWalkable,
  variants: [keyGradsVariant],
  halves: { reads: true, writes: false },
};

/**
 * Scaled dot-product attention (Vaswani et al. 2017): softmax(q kᵀ / √size) v.
 *
 * @param q `[..., queries, size]`
 * @param k `[..., keys, size]`
 * @param v `[..., keys, width]`
 */
export function attention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  return apply(attentionOp, [q, k, v], {});
}

/** All operations of this file. */
export const attentionOps: readonly Op[] = [
  ...[attentionOp, gradientOp, fusedOp, fusedQueryGradOp, fusedKeyGradsOp],
];
