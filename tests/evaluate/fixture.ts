/**
 * Features, and what other programs measured of them.
 *
 * @module
 */

import { Moments } from "../../src/evaluate/moments.ts";
import type { Rows } from "../../src/evaluate/rows.ts";
import { Random } from "../random.ts";

/** A file of `tests/fixtures/evaluate`. */
export const fixture = (name: string): URL =>
  new URL(`../fixtures/evaluate/${name}`, import.meta.url);

/** What `frechet.json` holds. */
interface Golden {
  readonly features: Readonly<Record<string, number[][]>>;
  readonly mean: Readonly<Record<string, number[]>>;
  readonly cov: { readonly a: number[][] };
  readonly frechet: Readonly<
    Record<string, { distance: number; scipy_sqrtm: number; trace_1: number; trace_2: number }>
  >;
  readonly kid: {
    readonly whole_sets_unbiased: number;
    readonly same_set_unbiased: number;
    readonly subsets: readonly { a: number[]; b: number[] }[];
    readonly per_subset: number[];
    readonly std: number;
  };
  readonly precision_recall: Readonly<
    Record<string, { precision: number; recall: number; density: number; coverage: number }>
  >;
  readonly inception_score: {
    readonly logits: number[][];
    readonly whole: number;
    readonly three_splits_in_order: number[];
    readonly mean: number;
    readonly std: number;
  };
}

/** Features `a`, `b` and `s`, of which the last has a singular covariance. */
export const golden: Golden = JSON.parse(await Deno.readTextFile(fixture("frechet.json")));

/** Rows of a table. */
export const rowsOf = (table: readonly number[][]): Rows => ({
  ...{ count: table.length, width: table[0].length },
  data: Float32Array.from(table.flat()),
});

/** The features of a name. */
export const features = (name: string): Rows => rowsOf(golden.features[name]);

/** Rows whose columns are mixtures of others. */
export function mixedRows(seed: string, count: number, width: number): Rows {
  const random = new Random(seed), data = new Float32Array(count * width);
  for (let r = 0; r < count; r++) {
    let last = 0;
    for (let i = 0; i < width; i++) data[r * width + i] = last = 0.6 * last + random.between(-1, 1);
  }
  return { count, width, data };
}

/** Their mean and covariance. */
export function gaussianOf(rows: Rows) {
  const moments = new Moments(rows.width);
  moments.add(rows);
  return moments.gaussian();
}

/** Some of the rows, from one to before another. */
export const between = ({ width, data }: Rows, from: number, to: number): Rows => ({
  ...{ count: to - from, width },
  data: Float32Array.from(data.subarray(from * width, to * width)),
});
