/**
 * Results in the memory of what is read for the last time on the way to them: sums of a residual block
 * in that of a summand, narrow images in that of wide ones.
 *
 * @module
 */

import type { Places } from "../compile/buffer_layout.ts";
import { push } from "../compile/multimap.ts";
import { type Graph, nodesOf } from "../graph.ts";
import { hasGaps } from "../ops/concat.ts";
import { Scratch, type Storage, storageBytes } from "../storage.ts";
import { constantData, inputName, type Tensor } from "../tensor.ts";
import type { Walk, WasmKernel } from "./kernel.ts";

/** Bytes of a result that are worth a barrier for each part of it. */
const WORTH_PARTS = 1 << 20;
/** What share of the result such a part is at least. */
const SHARE = 32;

/** Where results lie that are computed in place, and kernels that do so part by part. */
export interface InPlace {
  readonly placements: Places;
  readonly parts: ReadonlyMap<WasmKernel, readonly WasmKernel[]>;
}

/**
 * Finds what can be computed in place.
 *
 * @param placements Tensors that are parts of others anyway.
 * @param kernels In the order of their execution.
 */
export function findInPlace(
  graph: Graph,
  placements: Places,
  kernels: readonly WasmKernel[],
): InPlace {
  const all = new Map(placements), parts = new Map<WasmKernel, readonly WasmKernel[]>();
  const rootOf = (storage: Storage): Storage => {
    const place = storage instanceof Scratch ? undefined : all.get(storage);
    return place ? rootOf(place.within) : storage;
  };
  const last = new Map<Storage, number>(), writers = new Map<Storage, number[]>();
  kernels.forEach(({ pointers }, i) => {
    for (const { storage, write } of pointers) {
      last.set(rootOf(storage), i);
      if (write) push(writers, rootOf(storage), i);
    }
  });
  // Those with a buffer of their own, and those that must be zero where nothing is written.
  const outputs = new Set(Object.values(graph.outputs));
  const fixed = new Set<Storage>(
    nodesOf(graph).filter((x) =>
      outputs.has(x) || inputName(x) !== undefined || constantData(x) || hasGaps(x)
    ),
  );
  const isFree = (x: Storage): x is Tensor =>
    !(x instanceof Scratch) && !fixed.has(rootOf(x)) && !placements.has(x);

  kernels.forEach((kernel, i) => {
    const { pointers, walk } = kernel;
    for (const { storage: result, write, offset } of pointers) {
      if (!write || offset || !isFree(result) || all.has(result)) continue;
      if (writers.get(result)!.length > 1) continue;
      /** Whether something is no longer needed once the result is there. */
      const isOver = (x: Storage): x is Tensor =>
        x !== result && isFree(x) && last.get(rootOf(x)) === i;
      const readers = (x: Storage) => pointers.filter((p) => rootOf(p.storage) === rootOf(x));
      const same = pointers.find(({ storage, isInStep }) =>
        isInStep && isOver(storage) && storageBytes(storage) === storageBytes(result) &&
        readers(storage).every((p) => p.isInStep && !p.offset && p.storage === storage)
      );
      const place = (within: Storage) => {
        all.set(result, { within, offset: 0 });
        last.set(rootOf(within), last.get(result)!);
      };
      if (same) place(same.storage);
      else if (
        walk?.result === result && isOver(walk.input) && rootOf(walk.input) === walk.input &&
        readers(walk.input).length === 1 && storageBytes(result) >= WORTH_PARTS
      ) {
        const found = findParts(walk);
        if (!found) continue;
        const both = new Scratch((found.gap + storageBytes(walk.input)) / 4);
        all.set(walk.input, { within: both, offset: found.gap / 4 });
        place(both);
        parts.set(
          kernel,
          found.ends.map((end, k) => {
            const start = found.ends[k - 1] ?? 0;
            return { ...kernel, first: start * walk.tasks, tasks: (end - start) * walk.tasks };
          }),
        );
      }
    }
  });
  return { placements: all, parts };
}

/**
 * The steps at which the parts of a walk end, if its result is to start `gap` bytes before its input:
 * each writes only where the ones before have read, and so they grow.
 */
function findParts(
  { before, steps, input, result }: Walk,
): { gap: number; ends: readonly number[] } | undefined {
  const [read, written] = before(steps);
  // A result that is as large as what it is made of would never get ahead.
  const isWhole = read === storageBytes(input) && written === storageBytes(result);
  if (!isWhole || 3 * written > 2 * read) return undefined;
  const least = Math.ceil(steps / SHARE), gap = Math.ceil(before(least)[1] / 64) * 64;
  const ends: number[] = [];
  for (let at = 0; at < steps;) {
    const free = gap + before(at)[0];
    let end = at;
    while (end < steps && before(end + 1)[1] <= free) end++;
    ends.push(at = end);
  }
  return { gap, ends };
}
