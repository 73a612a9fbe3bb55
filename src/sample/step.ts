/**
 * A {@linkcode UpdateTable} as a function of tensors: one evaluation of the network, and the weighted sums
 * that follow from it, their weights in a table with a row for each evaluation.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import type { Graph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map } from "../gpu/ops/map.ts";
import { mean } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import type { ScheduleConfig } from "../diffusion/schedule.ts";
import { denoise } from "./denoiser.ts";
import type { UpdateTable, Weights } from "./solver.ts";

/** What x becomes when the network says what is no number; clipping would hide it. */
export const BROKEN = 3e38;

/** Squares of means of a network's output beyond this lead to no images. */
const HEALTHY = 1e30;

/** Names of the tensors of the shape of x that a plan remembers. */
export const memoriesOf = (plan: UpdateTable): string[] =>
  [...new Set(plan.flatMap(({ next }) => Object.keys(next)))].filter((name) => name !== "x");

/** A column of the table, one number each; a number where all rows have the same. */
type Column = Tensor | number;

/** The row of some columns at an index, as tensors that broadcast to images. */
function readRow(
  columns: ReadonlyMap<string, readonly number[]>,
  index: Tensor,
): (name: string) => Column {
  const varying = [...columns].filter(([, values]) => values.some((v) => v !== values[0]));
  const names = varying.map(([name]) => name), [first] = columns.values();
  const rows = first.flatMap((_, i) => varying.map(([, values]) => values[i]));
  const row = names.length
    ? gather(constant(rows, [first.length, names.length]), index)
    : constant([0], [1, 1]);
  return (name) => {
    const at = names.indexOf(name);
    return at < 0 ? columns.get(name)![0] : reshape(slice(row, 1, at, 1), [1, 1, 1, 1]);
  };
}

/** A sum of what has a weight in any row. */
interface Sum {
  readonly name: string;
  readonly terms: readonly string[];
}

/** Adds the columns of a sum. */
function addSum(
  columns: Map<string, readonly number[]>,
  name: string,
  rows: readonly Weights[],
): Sum {
  const terms = [...new Set(rows.flatMap((row) => Object.keys(row)))]
    .filter((term) => rows.some((row) => row[term]));
  for (const term of terms) columns.set(`${name} ${term}`, rows.map((row) => row[term] ?? 0));
  return { name, terms };
}

const asTensor = (x: Column): Tensor => typeof x === "number" ? constant([x], [1, 1, 1, 1]) : x;

/**
 * One evaluation, as updates of its inputs: `x`; the plan's memories; `sample`, the estimate of x_0;
 * and `health` `[1]`, a sum that is no number any more if the network's output was none.
 *
 * @param x The noisy images, the input named `x`.
 * @param index `i32` `[1]`, the number of the evaluation.
 * @param network What it says of images, given a timestep for each.
 * @param noise Standard normals of the shape of `x`; only asked for if the plan draws any.
 */
export function samplingStep(
  schedule: ScheduleConfig,
  plan: UpdateTable,
  x: Tensor,
  index: Tensor,
  network: (x: Tensor, t: Tensor) => Tensor,
  noise: () => Tensor,
): Graph["updates"] {
  const columns = new Map<string, readonly number[]>();
  columns.set("time", plan.map(({ at }) => at.time));
  columns.set("alpha", plan.map(({ at }) => at.alpha));
  columns.set("sigma", plan.map(({ at }) => at.sigma));
  for (const [i, name] of (["low", "high"] as const).entries()) {
    columns.set(name, plan.map(({ range = [0, 0] }) => range[i]));
  }
  const shownSum = addSum(columns, "shown", plan.map(({ input = { x: 1 } }) => input));
  const sums = ["x", ...memoriesOf(plan)].map((name) =>
    // Memories that a row does not name stay.
    addSum(columns, name, plan.map(({ next }) => next[name] ?? { [name]: 1 }))
  );
  const column = readRow(columns, index);

  const states = Object.fromEntries(memoriesOf(plan).map((name) => [name, input(name, x.shape)]));
  const known: Record<string, Tensor> = { ...states, x };
  if ([shownSum, ...sums].some(({ terms }) => terms.includes("noise"))) known.noise = noise();
  const evaluate = ({ name, terms }: Sum): Tensor => {
    if (!terms.length) return broadcastTo(constant([0]), x.shape);
    const weights = terms.map((term) => column(`${name} ${term}`));
    return map([...terms.map((term) => known[term]), ...weights], (...elements) => {
      const products = terms.map((_, i) => e.mul(elements[i + terms.length], elements[i]));
      return products.reduce((sum, product) => e.add(sum, product));
    });
  };

  known.x = evaluate(shownSum);
  const time = broadcastTo(reshape(asTensor(column("time")), [1]), [x.shape[0]]);
  const level = { alpha: asTensor(column("alpha")), sigma: asTensor(column("sigma")) };
  const { output, variance, sample, epsilon } = denoise(
    schedule,
    known.x,
    level,
    (shown) => network(shown, time),
  );
  Object.assign(known, { sample, epsilon });
  if (variance && known.noise) {
    // The logarithm of the variance lies where the network says between the two.
    known.noise = map(
      [known.noise, variance, column("low"), column("high")],
      (z, v, low, high) => {
        const share = e.mul(e.add(v, 1), 0.5);
        return e.mul(z, e.exp(e.mul(e.add(low, e.mul(share, e.sub(high, low))), 0.5)));
      },
    );
  }
  const health = input("health", [1]);
  const nextHealth = map([health, reshape(mean(output), [1])], e.add);
  const [next, ...memories] = sums.map(evaluate);
  const checked = map(
    [next, nextHealth],
    (x, h) => e.select(e.less(e.mul(h, h), HEALTHY), x, BROKEN),
  );
  return [
    [x, checked],
    ...memoriesOf(plan).map((name, i) => [states[name], memories[i]] as const),
    [input("sample", x.shape), sample],
    [health, nextHealth],
  ];
}
