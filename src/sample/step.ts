/**
 * One evaluation of a denoiser as a function of tensors, and the weighted sums that follow from it. The
 * weights are in a table with a row for each evaluation, which is an input of the program: another
 * strength, or another way through the noise levels, compiles nothing.
 *
 * @module
 */

import type { Denoised, Query } from "../diffusion/denoiser.ts";
import { perItem } from "../diffusion/items.ts";
import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import type { Graph } from "../gpu/graph.ts";
import { gather } from "../gpu/ops/gather.ts";
import { map } from "../gpu/ops/map.ts";
import { mean } from "../gpu/ops/sum.ts";
import { broadcastTo, reshape, slice } from "../gpu/ops/view.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";
import { guarded } from "./health.ts";
import type { UpdateTable, Weights } from "./solver.ts";

/** The noise of steps, and that of jumps back up. */
export type NoiseName = "noise" | "jump";

/** Names of the tensors of the shape of x that a table's evaluations remember. */
export const memoriesOf = (table: UpdateTable): string[] =>
  [...new Set(table.flatMap(({ next }) => Object.keys(next)))].filter((name) => name !== "x");

/** A sum of what has a weight in any row. */
interface Sum {
  readonly name: string;
  readonly terms: readonly string[];
}

/** What the columns of an encoded table are. */
export interface TableLayout {
  /** What the network is shown, if that is not x itself. */
  readonly shown: Sum | undefined;
  /** The next x, and that of every memory. */
  readonly sums: readonly Sum[];
  /** Names of the columns, in order. */
  readonly columns: readonly string[];
}

/** Columns that every table has. */
const LEVEL = ["time", "alpha", "sigma", "low", "high"] as const;

function sumOf(name: string, rows: readonly Weights[]): Sum {
  const terms = new Set(rows.flatMap((row) => Object.keys(row)));
  return { name, terms: [...terms].filter((term) => rows.some((row) => row[term])) };
}

/** Whether an evaluation shows the network x as it is. */
const isPlain = (weights: Weights): boolean =>
  Object.entries(weights).every(([name, weight]) => name === "x" ? weight === 1 : weight === 0);

/** What an evaluation makes of x and of the memories; those that it does not name stay. */
const nextOf = ({ next }: UpdateTable[number], name: string): Weights =>
  next[name] ?? { [name]: 1 };

/** The columns that the evaluations of a table need. */
export function tableLayout(table: UpdateTable): TableLayout {
  const inputs = table.map(({ input = { x: 1 } }) => input);
  const shown = inputs.every(isPlain) ? undefined : sumOf("shown", inputs);
  const sums = ["x", ...memoriesOf(table)].map((name) =>
    sumOf(name, table.map((row) => nextOf(row, name)))
  );
  const weights = [...(shown ? [shown] : []), ...sums].flatMap(({ name, terms }) =>
    terms.map((term) => `${name} ${term}`)
  );
  return { shown, sums, columns: [...LEVEL, ...weights] };
}

/**
 * A table's numbers, row by row.
 *
 * @throws {InputError} If a program of this layout cannot follow it.
 */
export function encodeTable(
  { shown, sums, columns }: TableLayout,
  table: UpdateTable,
): Float32Array<ArrayBuffer> {
  const refuse = () => {
    throw new InputError("Cannot sample: the compiled step does not know these updates");
  };
  const names = sums.map(({ name }) => name);
  if (memoriesOf(table).some((name) => !names.includes(name))) refuse();
  return Float32Array.from(table.flatMap((row) => {
    const { at, input = { x: 1 }, range: [low, high] = [0, 0] } = row;
    const values: Record<string, number> = { ...at, low, high };
    const put = (sum: Sum, weights: Weights) => {
      for (const [term, weight] of Object.entries(weights)) {
        if (weight && !sum.terms.includes(term)) refuse();
        values[`${sum.name} ${term}`] = weight;
      }
    };
    if (shown) put(shown, input);
    else if (!isPlain(input)) refuse();
    for (const sum of sums) put(sum, nextOf(row, sum.name));
    return columns.map((name) => values[name] ?? 0);
  }));
}

/** Where a run of evaluations is. */
export interface StepInputs {
  /** The noisy items, the input named `x`. */
  readonly x: Tensor;
  /** `i32` `[1]`, the number of the evaluation. */
  readonly index: Tensor;
  /** The encoded table `[rows, columns]`. */
  readonly table: Tensor;
}

/**
 * One evaluation, as updates of its inputs: `x`; the memories; `sample`, the estimate of x_0; and
 * `health` `[1]`, a sum that is no number any more if what was estimated is none.
 *
 * @param estimate What is said of noisy items.
 * @param noise Standard normals of the shape of `x`; only asked for what the table draws.
 */
export function samplingStep(
  estimate: (query: Pick<Query, "x" | "level">) => Denoised,
  { shown, sums, columns }: TableLayout,
  { x, index, table }: StepInputs,
  noise: (name: NoiseName) => Tensor,
): Graph["updates"] {
  const row = gather(table, index), rank = x.shape.length - 1;
  const column = (name: string) => slice(row, 1, columns.indexOf(name), 1);
  const value = (name: string) => perItem(reshape(column(name), [1]), rank);
  const memories = sums.map(({ name }) => name).filter((name) => name !== "x");
  const states = Object.fromEntries(memories.map((name) => [name, input(name, x.shape)]));
  const known: Record<string, Tensor> = { ...states, x };
  for (const name of ["noise", "jump"] as const) {
    const isDrawn = [...(shown ? [shown] : []), ...sums].some(({ terms }) => terms.includes(name));
    if (isDrawn) known[name] = noise(name);
  }
  const evaluate = ({ name, terms }: Sum): Tensor => {
    if (!terms.length) return broadcastTo(constant([0]), x.shape);
    const weights = terms.map((term) => value(`${name} ${term}`));
    return map([...terms.map((term) => known[term]), ...weights], (...elements) => {
      const products = terms.map((_, i) => e.mul(elements[i + terms.length], elements[i]));
      return products.reduce((sum, product) => e.add(sum, product));
    });
  };

  if (shown) known.x = evaluate(shown);
  const { sample, epsilon, variance, x: taken = known.x } = estimate({
    x: known.x,
    level: {
      time: broadcastTo(reshape(column("time"), [1]), [x.shape[0]]),
      alpha: value("alpha"),
      sigma: value("sigma"),
    },
  });
  Object.assign(known, { sample, epsilon, x: taken });
  if (variance && known.noise) {
    // The logarithm of the variance lies where the network says between the two.
    known.noise = map(
      [known.noise, variance, value("low"), value("high")],
      (z, v, low, high) => {
        const share = e.mul(e.add(v, 1), 0.5);
        return e.mul(z, e.exp(e.mul(e.add(low, e.mul(share, e.sub(high, low))), 0.5)));
      },
    );
  }
  // Clipping would hide in the image what is no number, and hides nothing in the noise.
  const health = input("health", [1]);
  const nextHealth = map([health, reshape(mean(epsilon), [1])], e.add);
  const [next, ...remembered] = sums.map(evaluate);
  return [
    [x, guarded(next, nextHealth)],
    ...memories.map((name, i) => [states[name], remembered[i]] as const),
    [input("sample", x.shape), sample],
    [health, nextHealth],
  ];
}
