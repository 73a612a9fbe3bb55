/**
 * UniPC (Zhao et al. 2023): a predictor like that of DPM-Solver++, and when the network has been
 * asked at its result, a corrector of one order more that needs no evaluation of its own.
 *
 * @module
 */

import { combine, lambdaOf, remember, type Solver, type Step, type Weights } from "../solver.ts";

/** A solver of this family. */
export interface UniPcConfig {
  /** Estimates that a predictor uses. */
  readonly order: number;
  /** B(h) = h, or e^h - 1 as is better with guidance. @default {"bh2"} */
  readonly solver?: "bh1" | "bh2";
  /** What is extrapolated. @default {"sample"} */
  readonly predicts?: "sample" | "epsilon";
  /** Steps, from 0, whose results are not corrected. @default {[]} */
  readonly uncorrected?: readonly number[];
  /** Whether the last steps use fewer estimates. @default {true} */
  readonly lowerOrderFinal?: boolean;
}

/** The solution of a small system of linear equations, by elimination with pivots. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]]), n = rows.length;
  for (let k = 0; k < n; k++) {
    const pivot = rows.reduce(
      (best, row, i) => i > k && Math.abs(row[k]) > Math.abs(rows[best][k]) ? i : best,
      k,
    );
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = rows[i][k] / rows[k][k];
      rows[i] = rows[i].map((x, j) => x - factor * rows[k][j]);
    }
  }
  return rows.map((row, i) => row[n] / row[i]);
}

/** What predictor and corrector of a step have in common. */
function expand(step: Step, nodes: readonly number[], config: UniPcConfig) {
  const { from, to } = step, { solver = "bh2", predicts = "sample" } = config;
  const isSample = predicts === "sample";
  const h = lambdaOf(to) - lambdaOf(from), signed = isSample ? -h : h;
  const base = Math.expm1(signed), width = solver === "bh1" ? signed : base;
  const places = [...nodes.map((lambda) => (lambda - lambdaOf(from)) / h), 1];
  // φ_k of exponential integrators, times k!: moments that the differences have to match.
  let phi = base / signed - 1, factorial = 1;
  const right = places.map((_, k) => {
    const value = phi * factorial / width;
    factorial *= k + 2;
    phi = phi / signed - 1 / factorial;
    return value;
  });
  const matrix = places.map((_, k) => places.map((r) => r ** k));
  const scale = isSample ? to.alpha : to.sigma;
  return {
    ...{ places, matrix, right },
    x: isSample ? to.sigma / from.sigma : to.alpha / from.alpha,
    latest: -scale * base,
    difference: -scale * width,
  };
}

/** Weights of differences to the latest estimate. */
function differences(shares: readonly number[], places: readonly number[], latest: string) {
  return shares.map((share, j): readonly [number, Weights] => [
    share / places[j],
    { [`last${j + (latest === "last1" ? 2 : 1)}`]: 1, [latest]: -1 },
  ]);
}

/** The solver. */
export const makeUniPc = (config: UniPcConfig): Solver => ({
  name: "unipc",
  summary: "predictor and corrector, from two estimates, Zhao et al. 2023",
  // The last step is not corrected, and lower orders end with one of order one.
  order: config.lowerOrderFinal ?? true ? 2 : config.order + 1,
  ...{ evaluations: 1, isStochastic: false },
  ...{ kind: "noZero", isUneven: true, takesZeroSnr: false, takes: [] },
  defaults: { spacing: "linspace" },
  plan(steps) {
    const { predicts = "sample", uncorrected = [], lowerOrderFinal = true } = config;
    const n = steps.length;
    const orders = steps.map(({ from, to }, i) => {
      const isFinite = Number.isFinite(lambdaOf(to) - lambdaOf(from));
      return isFinite ? Math.min(config.order, i + 1, lowerOrderFinal ? n - i : n) : 1;
    });
    /** The λ of estimates before that of step i, for its order. */
    const before = (i: number) =>
      Array.from({ length: orders[i] - 1 }, (_, j) => lambdaOf(steps[i - j - 1].from));

    return steps.map((step, i) => {
      const isCorrected = i > 0 && !uncorrected.includes(i - 1);
      const x = isCorrected ? correct(i - 1) : { x: 1 };
      const memory = remember("last", config.order, { [predicts]: 1 });
      return { at: step.from, next: { x: predict(i, x), start: x, ...memory } };
    });

    function predict(i: number, x: Weights): Weights {
      const { from, to } = steps[i], order = orders[i];
      // Rounded noise levels may end where they lead to.
      if (to.sigma === from.sigma) return x;
      if (to.sigma === 0) {
        const image = predicts === "sample"
          ? { sample: 1 }
          : combine([1 / from.alpha, x], [-from.sigma / from.alpha, { epsilon: 1 }]);
        return combine([to.alpha, image]);
      }
      const rule = expand(steps[i], before(i), config), inner = rule.matrix.slice(0, -1);
      const shares = order === 1 ? [] : order === 2 ? [1 / 2] : solve(
        inner.map((row) => row.slice(0, -1)),
        rule.right.slice(0, -1),
      );
      return combine(
        [rule.x, x],
        [rule.latest, { [predicts]: 1 }],
        ...differences(shares, rule.places, predicts)
          .map(([w, d]) => [rule.difference * w, d] as const),
      );
    }

    /** The end of step i, now that there is an estimate at its predicted end. */
    function correct(i: number): Weights {
      const rule = expand(steps[i], before(i), config);
      const shares = orders[i] === 1 ? [1 / 2] : solve(rule.matrix, rule.right);
      return combine(
        [rule.x, { start: 1 }],
        [rule.latest, { last1: 1 }],
        ...differences(shares.slice(0, -1), rule.places, "last1")
          .map(([w, d]) => [rule.difference * w, d] as const),
        [rule.difference * shares[shares.length - 1], { [predicts]: 1, last1: -1 }],
      );
    }
  },
});

/** Of order two, B(h) = e^h - 1, as diffusers has it. */
export const unipc: Solver = makeUniPc({ order: 2 });
