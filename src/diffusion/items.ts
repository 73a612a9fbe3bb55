/**
 * Numbers of items of any rank: `[batch, ...shape]`, of which pictures are those with three axes.
 *
 * @module
 */

import { mean } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";

/** One number for each item, `[batch]` or `[1]`, as a tensor that broadcasts to items of a rank. */
export const perItem = (values: Tensor, rank: number): Tensor =>
  reshape(values, [values.shape[0], ...new Array(rank).fill(1)]);

/** Means over each item, `[batch]`. */
export const meanPerItem = (x: Tensor): Tensor =>
  reshape(mean(x, x.shape.slice(1).map((_, i) => i + 1)), [x.shape[0]]);
