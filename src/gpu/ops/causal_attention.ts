/**
 * Attention of sequences that are read from one end, {@linkcode causalAttention}.
 *
 * @module
 */

import * as e from "../expression.ts";
import { constant, type Tensor } from "../tensor.ts";
import { map } from "./map.ts";
import { matmul } from "./matmul.ts";
import { softmax } from "./softmax.ts";
import { transpose } from "./view.ts";

/** Less than any score, and finite in 16 bits too. */
const HIDDEN = -30000;

/**
 * Attention where no query sees keys behind its own place: two products and a softmax, for lengths of
 * texts.
 *
 * @param q `[..., length, size]`
 * @param k `[..., length, size]`
 * @param v `[..., length, width]`
 */
export function causalAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const [length, size] = k.shape.slice(-2), places = Array.from({ length }, (_, i) => i);
  const [query, key] = [constant(places, [length, 1]), constant(places, [1, length])];
  const scores = map(
    [matmul(q, transpose(k)), query, key],
    (score, query, key) => e.select(e.less(query, key), HIDDEN, score),
  );
  return matmul(softmax(scores, 1 / Math.sqrt(size)), v);
}
