/**
 * The noise that each step adds, βₜ, as the schedules of the literature say it.
 *
 * @module
 */

import type { ScheduleConfig } from "./schedule.ts";

type Table = Float64Array<ArrayBuffer>;

/** βₜ and ᾱₜ = ∏(1 - βₛ), for t from 0 to T - 1. */
export interface BetaTables {
  readonly betas: Table;
  readonly alphasCumprod: Table;
}

/** Tables of a schedule, rounded to 32-bit floats where diffusers keeps them so. */
export function makeTables(config: ScheduleConfig): BetaTables {
  const sigmas = Array.from({ length: config.numTrainTimesteps }, (_, t) => sigmaAt(t, config));
  // The smallest of these noises are less than 32-bit floats resolve near ᾱ = 1.
  if (sigmas.every((sigma) => sigma !== undefined)) return tablesOf(Float64Array.from(sigmas));
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
  /** From ᾱ as a function of time in [0, 1]. */
  const fromBars = (bar: (time: number) => number) =>
    each((t) => Math.min(1 - bar((t + 1) / T) / bar(t / T), 0.999));
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
    case "squaredcos_cap_v2":
      return fromBars((time) => Math.cos((time + 0.008) / 1.008 * Math.PI / 2) ** 2);
    case "laplace":
      return fromBars((time) => {
        const half = 0.5 - time, log = Math.log(1 - 2 * Math.abs(half) + 1e-6) / 2;
        return 1 / Math.sqrt(1 + Math.exp(half < 0 ? -log : log));
      });
    case "exp":
      return fromBars((time) => Math.exp(-12 * time));
    case "edm":
    case "flow":
      throw new RangeError(`The schedule ${betaSchedule} is told by its noise levels`);
  }
}

/** The times of a flow, moved to more noise. */
export const shiftTime = (time: number, shift: number): number =>
  time / (time + (1 - time) / shift);

/**
 * σ of x_0 + σ ε at any timestep from 0 to T - 1, for the schedules that are told so: those of Karras
 * et al. 2022, and t / (1 - t) of a flow (1 - t) x_0 + t ε. Others are told by β.
 */
export function sigmaAt(timestep: number, config: ScheduleConfig): number | undefined {
  const { betaSchedule, numTrainTimesteps: T, sigmaMin: min, sigmaMax: max } = config;
  if (config.trainedBetas) return undefined;
  if (betaSchedule === "flow") {
    const time = shiftTime((timestep + 1) / T, config.shift);
    return time / (1 - time);
  }
  if (betaSchedule !== "edm") return undefined;
  const place = T === 1 ? 1 : timestep / (T - 1);
  if (config.sigmaSchedule === "exponential") return min * (max / min) ** place;
  const [from, to] = [min, max].map((sigma) => sigma ** (1 / config.rho));
  return (from + place * (to - from)) ** config.rho;
}

/** x_0 + σ ε written as √ᾱ x_0 + √(1 - ᾱ) ε. */
function tablesOf(sigmas: Table): BetaTables {
  const alphasCumprod = sigmas.map((sigma) => 1 / (1 + sigma ** 2));
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
