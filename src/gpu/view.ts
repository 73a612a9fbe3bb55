/**
 * Views: how a tensor's elements lie in the memory of another one. Reshaping, permuting, slicing
 * and broadcasting compute nothing; whoever reads the result walks the original with other strides.
 *
 * @module
 */

import { denseStrides, isDense } from "../shape.ts";
import type { Tensor } from "./tensor.ts";

/** Element (i, j, …) of a tensor lies at `offset + i * strides[0] + j * strides[1] + …`. */
export interface View {
  readonly strides: readonly number[];
  readonly offset: number;
}

/** A tensor that has memory of its own, and how another one lies in it. */
export interface Resolved extends View {
  readonly source: Tensor;
}

/** What was found before, so that chains of views are walked once. */
const resolved = new WeakMap<Tensor, Resolved>();

/** Follows views to the tensor whose memory they share. */
export function resolve(tensor: Tensor): Resolved {
  let known = resolved.get(tensor);
  if (!known) resolved.set(tensor, known = follow(tensor));
  return known;
}

function follow(tensor: Tensor): Resolved {
  if (!tensor.op.view) return { source: tensor, strides: denseStrides(tensor.shape), offset: 0 };
  const inner = resolve(tensor.inputs[0]);
  const view = tensor.op.view(tensor, inner);
  if (!view) throw new TypeError(`${tensor.op.name} of a scattered view was not copied first`);
  return { source: inner.source, ...view };
}

/** Whether a tensor's elements lie in order and without gaps, be it inside another one. */
export function isDenseView(tensor: Tensor): boolean {
  return isDense(tensor.shape, resolve(tensor).strides);
}
