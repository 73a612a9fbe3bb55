/**
 * Which elementwise tensors are cheaper to compute again, wherever they are needed, than to keep.
 *
 * @module
 */

import { inOrder } from "../expression.ts";
import { concatOp } from "../ops/concat.ts";
import { type MapAttributes, mapOp } from "../ops/map.ts";
import { sumOp } from "../ops/sum.ts";
import type { Tensor } from "../tensor.ts";
import type { Uses } from "./def_use.ts";

/**
 * The most primitives that several tensors in a row may come to if they are computed as one; each counts
 * as often as it is mentioned. This bounds what is computed twice and the code for it, and so makes the
 * time to compile a graph grow no faster than its size: without it, a chain of tensors of which each is
 * also summed would be computed from its beginning for every sum. Training a network takes 22.
 */
const MOST_WORK = 64;

/** What it takes to compute a tensor. */
interface Needs {
  /** What has to be in memory. */
  readonly leaves: Set<Tensor>;
  /** Primitives. */
  work: number;
}

/**
 * Has elementwise tensors computed wherever they are needed.
 *
 * @param maxStorages Storages that a kernel may touch.
 */
export function inlineCheap(uses: Uses, maxStorages: number): void {
  const needs = new Map<Tensor, Needs>();
  /** What a tensor takes as far as its inputs have been decided on. */
  const needsOf = (node: Tensor): Needs => {
    let known = needs.get(node);
    if (!known) {
      needs.set(node, known = { leaves: uses.leavesOf(node.inputs), work: workOf(node) });
    }
    return known;
  };
  for (const node of uses.nodes) {
    if (node.op !== mapOp || node.dtype !== "f32" || uses.roots.has(node)) continue;
    const own = needsOf(node), consumers = uses.consumersOf(node);
    const fits = (consumer: Tensor): boolean => {
      // Its inputs are not computed together.
      if (consumer.op === concatOp) {
        return consumers.length === 1 && own.leaves.size <= maxStorages - 2;
      }
      if (consumer.op !== mapOp && consumer.op !== sumOp) return false;
      const { leaves, work } = needsOf(consumer);
      const more = [...own.leaves].filter((x) => !leaves.has(x)).length;
      return leaves.size - 1 + more <= maxStorages - 2 && work + own.work <= MOST_WORK;
    };
    if (!consumers.every(fits)) continue;
    uses.inline(node);
    for (const consumer of consumers) {
      if (consumer.op === concatOp) continue;
      const theirs = needsOf(consumer);
      theirs.leaves.delete(node);
      for (const x of own.leaves) theirs.leaves.add(x);
      theirs.work += own.work;
    }
  }
}

/** Primitives of an operation; at least one, so that there is a bound on how many there are. */
function workOf(node: Tensor): number {
  if (node.op !== mapOp) return 0;
  const { expression } = (node.attributes as MapAttributes).formula;
  return Math.max(1, inOrder([expression]).filter(({ kind }) => kind === "call").length);
}
