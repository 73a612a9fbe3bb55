/**
 * What is drawn of a model while it is trained.
 *
 * @module
 */

import { makeGraph } from "../../gpu/graph.ts";
import { interpret } from "../../gpu/reference.ts";
import { constant, type HostArray } from "../../gpu/tensor.ts";
import { sizeOf } from "../../shape.ts";
import type { Dataset } from "../../data/dataset.ts";
import type { DenoisingNetwork } from "../../model/network.ts";
import type { Samples } from "../../sample/options.ts";
import { tokensInTurns } from "../../text/tokenizer.ts";

/** The first items of a data set; if it has fewer, they are repeated. */
export const firstItems = async (data: Dataset, count: number): Promise<Samples> =>
  await itemsAt(data, Array.from({ length: count }, (_, i) => i % data.count));

/** Items from all over a data set. */
export const someItems = async (data: Dataset, count: number): Promise<Samples> =>
  await itemsAt(data, spread(data.count, count));

/** So many places from all over. */
const spread = (total: number, count: number) =>
  Array.from({ length: count }, (_, k) => Math.floor(k * total / count));

/** Items at places of a data set. */
export async function itemsAt(data: Dataset, places: readonly number[]): Promise<Samples> {
  const { shape } = data, each = sizeOf(shape), count = places.length;
  const items = new Float32Array(count * each);
  for (const [i, index] of places.entries()) await data.read(index, items, i * each);
  return { count, shape, data: items };
}

/** The conditions that training makes of clean items, for these, but not varied. */
export function derivedConditions(
  { derived = {} }: DenoisingNetwork,
  { count, shape, data }: Samples,
): Record<string, HostArray> {
  const items = constant(data, [count, ...shape]);
  const entries = Object.entries(derived).map(([name, derive]) => [name, derive(items)] as const);
  return interpret(makeGraph(Object.fromEntries(entries)), {}, "single");
}

/** Items of two kinds in turns: what was made, and what it should be like. */
export function inTurns(a: Samples, b: Samples): Samples {
  const each = sizeOf(a.shape), data = new Float32Array(2 * a.count * each);
  for (let i = 0; i < a.count; i++) {
    [a, b].forEach(({ data: from }, k) =>
      data.set(from.subarray(i * each, (i + 1) * each), (2 * i + k) * each)
    );
  }
  return { count: 2 * a.count, shape: a.shape, data };
}

/** Captions of some items from all over a set, for a network that reads. */
export function tokensOfSome(
  { tokenize }: DenoisingNetwork,
  { captions }: Dataset,
  count: number,
): Int32Array | undefined {
  if (!tokenize || !captions) return undefined;
  const some = spread(captions.length, count).map((index) => captions[index][0]);
  return tokensInTurns(tokenize, some, count);
}
