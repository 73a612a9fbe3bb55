/**
 * In which order stages can be executed.
 *
 * @module
 */

import { push } from "./multimap.ts";
import type { Tensor } from "../tensor.ts";

/**
 * Stages in an order in which values are computed before, and overwritten after, they are read;
 * `undefined` if there is none.
 *
 * @param reads What each stage reads.
 * @param writes What each stage writes, a part of it or all.
 */
export function findOrder(
  reads: readonly ReadonlySet<Tensor>[],
  writes: readonly ReadonlySet<Tensor>[],
): number[] | undefined {
  const readers = new Map<Tensor, number[]>(), writers = new Map<Tensor, number[]>();
  reads.forEach((all, i) => all.forEach((x) => push(readers, x, i)));
  writes.forEach((all, i) => all.forEach((x) => push(writers, x, i)));
  // What comes before each stage; behind the stages, what comes before tensors that several write.
  const before: number[][] = reads.map(() => []);
  for (const [x, from] of writers) {
    const to = readers.get(x) ?? [], own = new Set(from);
    if (x.inputs.length === 0) {
      // An input is read for its old value; everything else for what was computed.
      for (const writer of from) before[writer].push(...to.filter((i) => i !== writer));
      continue;
    }
    const isOne = from.length === 1, whole = isOne ? from[0] : before.push([...from]) - 1;
    for (const reader of to) {
      if (!own.has(reader)) before[reader].push(whole);
      else before[reader].push(...from.filter((i) => i !== reader));
    }
  }
  const order = new Set<number>(), open = new Set<number>();
  const visit = (i: number): boolean => {
    if (order.has(i)) return true;
    if (open.has(i)) return false;
    open.add(i);
    const isPossible = before[i].sort((a, b) => a - b).every(visit);
    order.add(i);
    return isPossible;
  };
  return reads.every((_, i) => visit(i)) ? [...order].filter((i) => i < reads.length) : undefined;
}
