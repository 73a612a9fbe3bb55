/**
 * DPM-Solver and DPM-Solver++ in their multistep and SDE forms (Lu et al. 2022): the linear part of
 * the probability flow, or of a diffusion with the same marginals, is solved exactly, and the
 * estimate of x_0 or ε extrapolated in λ = log(α/σ) from the last ones.
 *
 * @module
 */

import {
  combine,
  lambdaOf,
  remember,
  type Solver,
  type Step,
  type UpdateTable,
  type Weights,
} from "../solver.ts";
import { exponentialWeights } from "./quadrature.ts";

/** A solver of this family. */
export interface DpmConfig {
  /** Estimates that a step uses. */
  readonly order: 1 | 2 | 3;
  /** Whether it follows a stochastic equation. */
  readonly isStochastic: boolean;
  /** x_0 for DPM-Solver++, ε for DPM-Solver. @default {"sample"} */
  readonly predicts?: "sample" | "epsilon";
  /**
   * With two estimates: whether their slope over the step is that of its start, instead of being
   * integrated. @default {false}
   */
  readonly isMidpoint?: boolean;
  /**
   * With three estimates: whether the third term counts by half, as in the papers' own code, and with
   * it diffusers, which makes a method of order two of order three's work. @default {false}
   */
  readonly isHalved?: boolean;
  /** Whether the last of few steps use fewer estimates, which keeps them stable. @default {true} */
  readonly lowerOrderFinal?: boolean;
}

/** With more steps than this, lower orders at the end are not needed. */
const FEW_STEPS = 15;

/** Weights of the last estimates, the latest first. */
function weigh(
  kappa: number,
  h: number,
  nodes: readonly number[],
  { isMidpoint = false, isHalved = false }: DpmConfig,
): number[] {
  const whole = -Math.expm1(-kappa * h);
  if (nodes.length === 1) return [whole];
  if (nodes.length === 2 && isMidpoint) {
    const half = -whole * h / (2 * nodes[1]);
    return [whole + half, -half];
  }
  const exact = exponentialWeights(kappa, h, nodes);
  if (nodes.length === 2 || !isHalved) return exact;
  // In Newton's form the third term is ∫u² times the second divided difference of the estimates.
  const square = h ** 2 - 2 / kappa * (h - whole / kappa), [, u1, u2] = nodes;
  const divided = [1 / (u1 * u2), 1 / (u1 * (u1 - u2)), 1 / (u2 * (u2 - u1))];
  return exact.map((w, j) => w - divided[j] * square / 2);
}

/** The steps of a solver. */
export function planDpm(
  steps: readonly Step[],
  config: DpmConfig,
): UpdateTable {
  const { order, isStochastic, predicts = "sample", lowerOrderFinal = true } = config;
  const n = steps.length, isSample = predicts === "sample";
  return steps.map(({ from, to }, i) => {
    const left = lowerOrderFinal && n < FEW_STEPS ? n - i : order;
    const start = lambdaOf(from), h = lambdaOf(to) - start;
    const nodes = Array.from(
      { length: Number.isFinite(h) ? Math.min(order, i + 1, left) : 1 },
      (_, j) => lambdaOf(steps[i - j].from) - start,
    ).filter(Number.isFinite);
    const kappa = (isSample ? 1 : -1) * (isSample && isStochastic ? 2 : 1);
    const weights = weigh(kappa, h, nodes.length ? nodes : [0], config);
    const [x, scale, noise] = coefficients(isSample, isStochastic, { from, to }, h);
    const sum: Weights = combine(
      [x, { x: 1 }],
      [scale, { [predicts]: weights[0] }],
      ...weights.slice(1).map((w, j) => [scale, { [`last${j + 1}`]: w }] as const),
      [noise, { noise: 1 }],
    );
    const memory = order > 1 ? remember("last", order - 1, { [predicts]: 1 }) : {};
    return { at: from, next: { x: sum, ...memory } };
  });
}

/** Of x, of the estimates, and of the noise. */
function coefficients(
  isSample: boolean,
  isStochastic: boolean,
  { from, to }: Step,
  h: number,
): [number, number, number] {
  if (!isSample) {
    const fresh = isStochastic ? to.sigma * Math.sqrt(Math.expm1(2 * h)) : 0;
    return [to.alpha / from.alpha, isStochastic ? 2 * to.sigma : to.sigma, fresh];
  }
  const ratio = to.sigma / from.sigma;
  if (!isStochastic) return [ratio, to.alpha, 0];
  return [ratio * Math.exp(-h), to.alpha, to.sigma * Math.sqrt(-Math.expm1(-2 * h))];
}

/** A sampler of this family. */
export const makeDpm = (
  name: string,
  summary: string,
  convergence: number,
  config: DpmConfig,
): Solver => ({
  ...{ name, summary, order: convergence, evaluations: 1, isStochastic: config.isStochastic },
  ...{ kind: "noZero", isUneven: true, takesZeroSnr: config.predicts !== "epsilon", takes: [] },
  defaults: { spacing: "linspace", ...(config.order > 1 ? { steps: 20 } : {}) },
  plan: (steps) => planDpm(steps, config),
});

/** DPM-Solver++ of order one, which is DDIM. */
export const dpmpp1: Solver = makeDpm("dpmpp_1", "DPM-Solver++ of order 1, Lu et al. 2022", 1, {
  ...{ order: 1, isStochastic: false },
});

/** DPM-Solver++(2M). */
export const dpmpp2m: Solver = makeDpm(
  "dpmpp_2m",
  "DPM-Solver++ of order 2, multistep, Lu et al. 2022",
  2,
  { order: 2, isStochastic: false, isMidpoint: true },
);

/** DPM-Solver++(3M). */
export const dpmpp3m: Solver = makeDpm(
  "dpmpp_3m",
  "DPM-Solver++ of order 3, multistep, Lu et al. 2022",
  3,
  { order: 3, isStochastic: false },
);

/** SDE-DPM-Solver++ of order one, which is DDIM with eta 1. */
export const dpmpp1Sde: Solver = makeDpm("dpmpp_1_sde", "its stochastic form, of order 1", 1, {
  ...{ order: 1, isStochastic: true },
});

/** SDE-DPM-Solver++(2M). */
export const dpmpp2mSde: Solver = makeDpm("dpmpp_2m_sde", "its stochastic form, multistep", 2, {
  ...{ order: 2, isStochastic: true, isMidpoint: true },
});

/** SDE-DPM-Solver++(3M). */
export const dpmpp3mSde: Solver = makeDpm("dpmpp_3m_sde", "its stochastic form, from three", 2, {
  ...{ order: 3, isStochastic: true },
});
