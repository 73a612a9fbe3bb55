/**
 * Loop nests: what elementwise operations and sums become when they are fused. A nest walks a
 * domain, reads operands through strides, evaluates expressions, and stores the values or sums them
 * over some axes. All targets generate code from it.
 *
 * @module
 */

import type { Expression } from "../expression.ts";
import type { Shape } from "../../shape.ts";
import type { Tensor } from "../tensor.ts";

/** Element (i, j, …) of the domain is at `offset + i * strides[0] + j * strides[1] + …`. */
export interface Access<S> {
  readonly storage: S;
  readonly strides: readonly number[];
  readonly offset: number;
}

/** A value that a nest computes, and where it puts it. */
export interface Result<S> extends Access<S> {
  /** Over arguments numbered like the operands. */
  readonly expression: Expression;
}

/** A fused loop nest over storages of type `S`. */
export interface Loop<S> {
  readonly label: string;
  readonly domain: Shape;
  /** Axes that are summed; results have stride 0 there. */
  readonly summed: readonly boolean[];
  readonly operands: readonly Access<S>[];
  readonly results: readonly Result<S>[];
  /**
   * What becomes of the sum, which is argument 0, if there is but one, of operand 0; operands after
   * it are the other arguments, and do not move along summed axes.
   */
  readonly finish?: Expression;
}

/** An expression over the elements of a domain, and what its arguments read. */
export interface Elementwise {
  readonly domain: Shape;
  readonly operands: readonly Access<Tensor>[];
  readonly expression: Expression;
}

/** Elementwise work that an operation's kernel does on the way. */
export interface Fused {
  /** How each element of the first input is computed, instead of being read. */
  readonly input?: Elementwise;
  /** What becomes of the result, which is argument 0; operand i is argument i + 1. */
  readonly output?: Elementwise & { readonly storage: Tensor };
}

/** An axis of a simplified nest, with the strides of operands and results in order. */
export interface Axis {
  readonly size: number;
  readonly summed: boolean;
  readonly strides: readonly number[];
}

/** Whether there is anything to sum; axes of size 1 do not count. */
export const isSum = <S>(loop: Loop<S>): boolean =>
  loop.summed.some((s, i) => s && loop.domain[i] > 1);

/** The nest's axes without those of size 1, neighbours merged where every access allows it. */
export function collapse<S>(loop: Loop<S>): Axis[] {
  const accesses = [...loop.operands, ...loop.results];
  const axes: Axis[] = [];
  loop.domain.forEach((size, i) => {
    if (size === 1) return;
    const axis = { size, summed: loop.summed[i], strides: accesses.map((a) => a.strides[i]) };
    const last = axes.at(-1);
    const merges = last && last.summed === axis.summed &&
      last.strides.every((s, k) => s === axis.strides[k] * size);
    if (merges) axes[axes.length - 1] = { ...axis, size: last.size * size };
    else axes.push(axis);
  });
  return axes;
}

/** The axis as an outer one of `size / inner` and an inner one of `inner` elements. */
export function splitAxis(axis: Axis, inner: number): [Axis, Axis] {
  return [
    { ...axis, size: axis.size / inner, strides: axis.strides.map((s) => s * inner) },
    { ...axis, size: inner },
  ];
}

/** Whether the innermost axis can be walked four elements at a time. */
export function isVectorizable<S>(loop: Loop<S>, axes: readonly Axis[]): boolean {
  const inner = axes.at(-1);
  if (!inner || inner.summed || inner.size % 4) return false;
  const accesses = [...loop.operands, ...loop.results];
  return accesses.every((access, k) => {
    const unit = inner.strides[k] === 1;
    if (!unit) return inner.strides[k] === 0 && k < loop.operands.length;
    return access.offset % 4 === 0 && axes.slice(0, -1).every((a) => a.strides[k] % 4 === 0);
  });
}
