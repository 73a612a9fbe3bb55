/**
 * The noise that each step adds, βₜ, as the schedules of the literature say it.
 *
 * @module
 */

import { karrasSigmas } from "./sigmas.ts";
import type { ScheduleConfig } from "./schedule.ts";

type Table = Float64Array<ArrayBuffer>;

/** βₜ and ᾱₜ = ∏(1 - βₛ), for t from 0 to T - 1. */
export interface BetaTables {
  readonly betas: Table;
  readonly alphasCumprod: Table;
}

/** Tables of a schedule, rounded to 32-bit floats where diffusers keeps them so. */
export function makeTables(config: ScheduleConfig): BetaTables {
  // The smallest of these noises are less than 32-bit floats resolve near ᾱ = 1.
  if (config.betaSchedule === "edm" && !config.trainedBetas) return karrasTables(config);
  const tables = accumulate(Float64Array.from(config.trainedBetas ?? namedBetas(config)));
  return config.rescaleBetasZeroSnr ? rescaleToZeroSnr(tables.alphasCumprod) : tables;
}

function accumulate(given: Table): BetaTables {
  const betas = given.map(Math.fround);
  let product = 1;
  return {
    betas,
    alphasCumprod: betas.map((beta) => Math.fround(product *= Math.fround(1 - beta))),
  };
}

function namedBetas(config: ScheduleConfig): Table {
  const { numTrainTimesteps: T, betaStart, betaEnd, betaSchedule } = config;
  const each = (f: (t: number) => number) => Float64Array.from({ length: T }, (_, t) => f(t));
  const line = (from: number, to: number) =>
    each((t) => Math.fround(T === 1 ? from : from + t * (to - from) / (T - 1)));
  switch (betaSchedule) {
    case "linear":
      return line(betaStart, betaEnd);
    case "scaled_linear":
    case "quadratic":
      return line(Math.sqrt(betaStart), Math.sqrt(betaEnd)).map((root) => root ** 2);
    case "sigmoid":
      return line(-6, 6).map((x) => betaStart + (betaEnd - betaStart) / (1 + Math.exp(-x)));
    case "exponential":
      return each((t) => Math.min(-Math.expm1(-betaStart * (t + 1)), betaEnd));
    case "squaredcos_cap_v2": {
      const alphaBar = (time: number) => Math.cos((time + 0.008) / 1.008 * Math.PI / 2) ** 2;
      return each((t) => Math.min(1 - alphaBar((t + 1) / T) / alphaBar(t / T), 0.999));
    }
    case "edm":
      return karrasTables(config).betas;
  }
}

/** Noise levels of Karras et al. 2022, x_0 + σ ε, written as √ᾱ x_0 + √(1 - ᾱ) ε. */
function karrasTables({ numTrainTimesteps, sigmaMin, sigmaMax, rho }: ScheduleConfig): BetaTables {
  const sigmas = karrasSigmas(numTrainTimesteps, sigmaMin, sigmaMax, rho).reverse();
  const alphasCumprod = Float64Array.from(sigmas, (sigma) => 1 / (1 + sigma ** 2));
  return { alphasCumprod, betas: alphasCumprod.map((bar, t, all) => 1 - bar / (all[t - 1] ?? 1)) };
}

/**
 * Shifts √ᾱ so that it ends at 0, and stretches it so that it starts where it did (Lin et al. 2023,
 * algorithm 1).
 */
function rescaleToZeroSnr(bars: Table): BetaTables {
  const f = Math.fround, roots = bars.map((bar) => f(Math.sqrt(bar)));
  const first = roots[0], last = roots[roots.length - 1];
  const stretch = first > last ? f(first / f(first - last)) : 0;
  const squares = roots.map((root) => f(f(f(root - last) * stretch) ** 2));
  return accumulate(squares.map((bar, t) => 1 - f(t ? bar / squares[t - 1] : bar)));
}
