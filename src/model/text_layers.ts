/**
 * The layers of transformers that read texts.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { attention } from "../gpu/ops/attention.ts";
import { causalAttention } from "../gpu/ops/causal_attention.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, map, mul, toFloat } from "../gpu/ops/map.ts";
import { splitHeads } from "../gpu/ops/matmul.ts";
import { sum } from "../gpu/ops/sum.ts";
import { permute, reshape, slice } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { jointLinear, layerNorm, linear, type WithParameters } from "./layers.ts";

/** x σ(1.702 x), which OpenAI takes for GELU. */
export const quickGelu = (x: Tensor): Tensor =>
  map([x], (x) => e.mul(x, e.sigmoid(e.mul(x, 1.702))));

/** A table of as many vectors. */
interface Table {
  readonly name: string;
  readonly rows: number;
}

/** The vectors of tokens `i32` `[batch, n]` and those of their places, added: `[batch, n, width]`. */
export function embedTokens(
  { parameter }: WithParameters,
  ids: Tensor,
  width: number,
  tables: { readonly tokens: Table; readonly places: Table },
): Tensor {
  const [batch, n] = ids.shape, { tokens, places } = tables;
  if (ids.shape.length !== 2 || n > places.rows) {
    throw new RangeError(
      `Cannot read tokens of shape [${ids.shape.join(", ")}]: it must be [batch, n], n being ` +
        `${places.rows} at the most`,
    );
  }
  const [place, table] = [places, tokens].map(({ name, rows }) =>
    parameter({
      ...{ name: `${name}.weight`, shape: [rows, width], order: "plain" },
      ...{ init: "normal", isTrained: true },
    })
  );
  const vectors = reshape(gather(table, reshape(ids, [batch * n])), [batch, n, width]);
  return add(vectors, slice(place, 0, 0, n));
}

/** How a layer of attention looks. */
export interface SelfAttention {
  /** What the names of its dense layers begin with. */
  readonly name: string;
  /** How they end. */
  readonly parts: readonly [query: string, key: string, value: string, out: string];
  readonly heads: number;
  /** The width of a head. */
  readonly size: number;
  /** Whether queries, keys and values have biases. */
  readonly hasBias: boolean;
  /** Whether a token sees only those before it, and itself. */
  readonly isCausal: boolean;
}

/** Attention of tokens `[batch, n, width]` to each other. */
export function selfAttention(net: WithParameters, x: Tensor, layer: SelfAttention): Tensor {
  const [batch, n, width] = x.shape, { name, parts, heads, size, hasBias, isCausal } = layer;
  const inner = heads * size, own = parts.slice(0, 3);
  const [q, k, v] = jointLinear(net, name, own, x, inner).map((product, i) => {
    if (!hasBias) return splitHeads(product, heads);
    const bias = net.parameter({
      ...{ name: `${name}.${own[i]}.bias`, shape: [inner], order: "plain", init: "zeros" },
      isTrained: true,
    });
    // That of the keys adds the same to all scores of a query, which softmax cancels.
    return splitHeads(i === 1 ? product : add(product, bias), heads);
  });
  const mixed = permute((isCausal ? causalAttention : attention)(q, k, v), [0, 2, 1, 3]);
  return linear(net, `${name}.${parts[3]}`, reshape(mixed, [batch, n, inner]), width);
}

/** How a layer of a {@linkcode transformerLayer} looks. */
export interface TransformerLayer {
  /** The names of its norms and of the dense layers between tokens. */
  readonly names: readonly [norm1: string, norm2: string, in_: string, out: string];
  readonly attention: SelfAttention;
  /** The width between the two dense layers. */
  readonly inner: number;
  readonly activation: (x: Tensor) => Tensor;
  /** Added to variances. */
  readonly eps: number;
}

/** Attention, then two dense layers, each behind a norm and added to what it was given. */
export function transformerLayer(net: WithParameters, x: Tensor, layer: TransformerLayer): Tensor {
  const { names: [norm1, norm2, first, second], inner, activation, eps } = layer;
  const mixed = add(x, selfAttention(net, layerNorm(net, norm1, x, eps), layer.attention));
  const wide = activation(linear(net, first, layerNorm(net, norm2, mixed, eps), inner));
  return add(mixed, linear(net, second, wide, x.shape[2]));
}

/**
 * The vector of each row's largest score, `[batch, width]`; of its first one, where there are several.
 *
 * @param scores `[batch, n]`, floats.
 * @param states `[batch, n, width]`
 */
export function stateAtLargest(scores: Tensor, states: Tensor): Tensor {
  const [batch, n, width] = states.shape, places = Array.from({ length: n }, (_, i) => i);
  const better = map(
    [
      ...[reshape(scores, [batch, n, 1]), reshape(scores, [batch, 1, n])],
      ...[constant(places, [n, 1]), constant(places, [1, n])],
    ],
    (own, other, place, place2) =>
      e.select(e.less(own, other), 1, e.select(e.less(other, own), 0, e.less(place2, place))),
  );
  const chosen = map([sum(better, [2])], (count) => e.less(count, 0.5));
  return reshape(sum(mul(states, chosen), [1]), [batch, width]);
}

/** 1 where a token is `id`, else 0. */
export const isToken = (ids: Tensor, id: number): Tensor =>
  map([toFloat(ids)], (token) => e.select(e.sub(token, id), 0, 1));
