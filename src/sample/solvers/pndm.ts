/**
 * Pseudo numerical methods (Liu et al. 2022): Adams-Bashforth's mixture of the last four estimates
 * of ε, put into the step of DDIM. It starts with three steps of Runge and Kutta's kind (`pndm`), or
 * with a step there and back (`plms`, as latent diffusion does).
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { NoiseLevel, NoiseSchedule } from "../../diffusion/schedule.ts";
import { endOf } from "./ddim.ts";
import {
  combine,
  type Evaluation,
  indexOf,
  remember,
  type Solver,
  type Step,
  type Traits,
  type UpdateTable,
  type Weights,
} from "../solver.ts";

/** Adams-Bashforth's weights of the last estimates, the latest first. */
const ADAMS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [
  55 / 24,
  -59 / 24,
  37 / 24,
  -9 / 24,
]];

/** What is mixed: the prediction itself, which is not the same for ε and for v. */
function mixed({ alpha, sigma }: NoiseLevel, { config }: NoiseSchedule) {
  const isV = config.predictionType === "v_prediction";
  return {
    estimate: (isV ? { epsilon: 1 / alpha, x: -sigma / alpha } : { epsilon: 1 }) as Weights,
    /** ε of a mixture. */
    epsilon: (mixture: Weights, from: NoiseLevel, x: string): Weights =>
      isV ? combine([from.alpha, mixture], [from.sigma, { [x]: 1 }]) : mixture,
  };
}

/** The noise at a timestep; there is none after the last, where a large offset would lead. */
const levelAt = (t: number, schedule: NoiseSchedule): NoiseLevel =>
  schedule.levelAt(Math.min(t, schedule.config.numTrainTimesteps - 1));

/** The step of DDIM from `x`, with some ε. */
const jump = (from: NoiseLevel, to: NoiseLevel, x: string, epsilon: Weights): Weights => {
  const alpha = to.alpha / from.alpha;
  return combine([alpha, { [x]: 1 }], [to.sigma - from.sigma * alpha, epsilon]);
};

/**
 * Three steps of four evaluations each: there, halfway twice, and there.
 *
 * @param isUneven Whether it first goes half an odd stride, rounded down, and is asked at the other
 * half, as in diffusers.
 */
function rungeKutta(
  timesteps: readonly number[],
  stride: number,
  schedule: NoiseSchedule,
  isUneven: boolean,
): Evaluation[] {
  const half = Math.floor(stride / 2);
  return timesteps.slice(0, 3).flatMap((t, i) => {
    const next = timesteps[i + 1], start = levelAt(t, schedule);
    const places = [[t, isUneven ? t - half : next + half, 1 / 6], [
      next + half,
      next + half,
      1 / 3,
    ]];
    places.push([next + half, next + half - half, 1 / 3], [next, next, 1 / 6]);
    return places.map(([here, there, weight], k): Evaluation => {
      const at = levelAt(here, schedule), { estimate, epsilon } = mixed(at, schedule);
      const to = levelAt(there, schedule), sum = combine([1, { sum: 1 }], [weight, estimate]);
      const from = k ? "start" : "x";
      const x = jump(start, to, from, epsilon(k === 3 ? sum : estimate, start, from));
      return {
        at,
        next: {
          x,
          sum: k === 3 ? {} : k ? sum : combine([weight, estimate]),
          ...(k ? {} : { start: { x: 1 }, ...remember("last", 3, estimate) }),
        },
        endsStep: k === 3,
      };
    });
  });
}

/** What a timestep lies from the next one, also where the first steps are left out. */
const strideOf = ([{ from, to }]: readonly Step[], schedule: NoiseSchedule): number =>
  to.sigma ? indexOf(from, schedule) - indexOf(to, schedule) : schedule.config.numTrainTimesteps;

/** Adams and Bashforth's step from a timestep, where so many estimates are remembered. */
function adams(
  t: number,
  { stride, known, schedule }: {
    readonly stride: number;
    readonly known: number;
    readonly schedule: NoiseSchedule;
  },
): Evaluation {
  const level = (t: number) => endOf(levelAt(t, schedule), schedule), from = level(t);
  const { estimate, epsilon } = mixed(from, schedule), weights = ADAMS[Math.min(known, 3)];
  const mixture = combine(
    ...weights.map((w, j) => [w, j ? { [`last${j}`]: 1 } : estimate] as const),
  );
  const x = jump(from, level(t - stride), "x", epsilon(mixture, from, "x"));
  return { at: from, next: { x, ...remember("last", 3, estimate) } };
}

function rungeKuttaFirst(isUneven: boolean): Solver["plan"] {
  return (steps, schedule) => {
    const timesteps = steps.map(({ from }) => indexOf(from, schedule)), n = timesteps.length;
    if (n < 4) throw new InputError(`Cannot sample by pndm in ${n} steps: it takes 4 at least`);
    const stride = strideOf(steps, schedule);
    const start = rungeKutta(timesteps, stride, schedule, isUneven);
    return [...start, ...timesteps.slice(3).map((t) => adams(t, { stride, known: 3, schedule }))];
  };
}

/**
 * The evaluations from one on, by the timesteps of a whole run, of which the second is twice. Whatever
 * the second evaluation is told, it redoes the first step, with the mean of the slopes at both ends,
 * and does not go on.
 */
function thereAndBack(
  steps: readonly Step[],
  schedule: NoiseSchedule,
  skipped: number,
): UpdateTable {
  const [first, second, ...rest] = steps.map(({ from }) => indexOf(from, schedule));
  const all = second === undefined ? [first] : [first, second, second, ...rest];
  const stride = strideOf(steps, schedule);
  const level = (t: number) => endOf(levelAt(t, schedule), schedule);
  return all.slice(skipped).map((t, i, { length }): Evaluation => {
    if (i !== 1) {
      const step = adams(t, { stride, known: Math.max(i - 1, 0), schedule });
      const isRedone = i === 0 && length > 1;
      return isRedone
        ? { ...step, next: { ...step.next, start: { x: 1 } }, endsStep: false }
        : step;
    }
    const from = level(t + stride), { estimate, epsilon } = mixed(level(t), schedule);
    const mean = combine([1 / 2, estimate], [1 / 2, { last1: 1 }]);
    const x = jump(from, level(t), "start", epsilon(mean, from, "start"));
    return { at: level(t), next: { x } };
  });
}

const traits: Traits = {
  ...{ order: 2, evaluations: 1, isStochastic: false },
  ...{ kind: "integer", isUneven: false, takesZeroSnr: false, takes: [] },
};

/** The method, with half strides as they are or as in diffusers. */
export const makePndm = (isUneven: boolean): Solver => ({
  name: "pndm",
  summary: "pseudo multistep method after three Runge-Kutta steps, Liu et al. 2022",
  ...traits,
  plan: rungeKuttaFirst(isUneven),
});

/** With three steps of Runge and Kutta's kind at first, of four evaluations each. */
export const pndm: Solver = makePndm(false);

/** With one evaluation more at first. */
export const plms: Solver = {
  name: "plms",
  summary: "pseudo multistep method, as latent diffusion starts it",
  ...traits,
  plan: (steps, schedule) => thereAndBack(steps, schedule, 0),
  planCut: thereAndBack,
};
