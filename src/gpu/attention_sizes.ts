/**
 * The sizes of attention, which its kernels and gradients share on every target.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import type { Tensor } from "./tensor.ts";

/** What is multiplied: `batch` times `[queries, size]` by `[keys, size]`, and by `[keys, width]`. */
export interface AttentionSizes {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly size: number;
  readonly width: number;
}

/** Sizes of attention over these queries, keys and values. */
export function attentionSizes([q, , v]: readonly Tensor[]): AttentionSizes {
  const [queries, size] = q.shape.slice(-2), [keys, width] = v.shape.slice(-2);
  return { batch: sizeOf(q.shape.slice(0, -2)), queries, keys, size, width };
}
