/**
 * The contract of sampling methods. A method turns the noise levels that it is to visit into a
 * {@linkcode UpdateTable}: numbers only, worked out beforehand in double precision. At every evaluation of
 * the network, each tensor of the state becomes a weighted sum of the state, of what the network
 * estimates, and of fresh noise. That is all that the samplers of the literature do, be they
 * multistep (the state remembers earlier estimates), of several evaluations a step, or stochastic;
 * `step.ts` makes a graph of it.
 *
 * @module
 */

import type { NoiseLevel, NoiseSchedule } from "../diffusion/schedule.ts";
import type { MethodOptions } from "./options.ts";

/**
 * Weights of a sum, by what they weigh: `x`, the noisy images; `sample` and `epsilon`, what the
 * network says that x_0 and ε are; `noise` and `jump`, standard normals, of which a network that
 * learns variances scales the first; and names of memories.
 */
export type Weights = Readonly<Record<string, number>>;

/** One evaluation of the network, and what becomes of the state. */
export interface Evaluation {
  /** The noise that x has when the network is asked. */
  readonly at: NoiseLevel;
  /** What the network is shown, and what `x` means in `next`. @default {x} */
  readonly input?: Weights;
  /** The next `x`, and the next of each memory that changes. Memories are zero at first. */
  readonly next: Readonly<Record<string, Weights>>;
  /**
   * With `learned_range`: logarithms of the least and the largest variance of `noise`, between which
   * the network chooses.
   */
  readonly range?: readonly [low: number, high: number];
  /** Whether this one ends a step, so that x has less noise than before. @default {true} */
  readonly endsStep?: boolean;
}

/** The evaluations of a run, from noise to images. */
export type UpdateTable = readonly Evaluation[];

/** A step of a sampler: where it starts and where it leads. */
export interface Step {
  /** More noise. */
  readonly from: NoiseLevel;
  /** Less noise. */
  readonly to: NoiseLevel;
}

/** A sampling method. */
export interface Solver {
  /** What it is called in files and on the command line. */
  readonly name: string;
  /** What it is, in a few words, with its paper. */
  readonly summary: string;
  /**
   * How fast it converges with the number of steps, as a power: a solver of the probability flow by
   * its error, a stochastic one by that of the variance it leads to.
   */
  readonly order: number;
  /** Evaluations of the network a step; the last one, and the first of some, differ. */
  readonly evaluations: number;
  /** Whether its steps draw noise, with default options. */
  readonly isStochastic: boolean;
  /**
   * Timesteps it can visit: `integer` ones only, `noZero` ones (integer, without a step at 0), or
   * `continuous` ones. The latter two also visit noise levels such as those of Karras.
   */
  readonly kind: "integer" | "continuous" | "noZero";
  /** Whether steps may be uneven, so that timesteps can be given by hand. */
  readonly isUneven: boolean;
  /** Whether it is defined for schedules that end in nothing but noise. */
  readonly takesZeroSnr: boolean;
  /** Which of the options of {@linkcode MethodOptions} it takes. */
  readonly takes: readonly ("eta" | "churn")[];
  /** Whether it goes from images to noise. @default {false} */
  readonly isInverse?: boolean;
  /** The evaluations of these steps. */
  plan(steps: readonly Step[], schedule: NoiseSchedule, options: MethodOptions): UpdateTable;
  /**
   * The evaluations that are left of a whole run where diffusers' pipelines leave out the first steps,
   * if they are others than those of the rest.
   */
  readonly planCut?: (
    steps: readonly Step[],
    schedule: NoiseSchedule,
    skipped: number,
  ) => UpdateTable;
  /** Its options where none are given. */
  readonly defaults?: Pick<MethodOptions, "sigmas" | "spacing"> & { readonly steps?: number };
}

/** What is known of a method beside its steps. */
export type Traits = Omit<Solver, "name" | "summary" | "plan" | "planCut">;

/** A sum of weighted sums. */
export function combine(...parts: readonly (readonly [number, Weights])[]): Weights {
  const sum: Record<string, number> = {};
  for (const [factor, weights] of parts) {
    for (const [name, weight] of Object.entries(weights)) {
      sum[name] = (sum[name] ?? 0) + factor * weight;
    }
  }
  return sum;
}

/** σ / α: noise in units of the image. */
export const ratioOf = ({ alpha, sigma }: NoiseLevel): number => sigma / alpha;

/** Half the logarithm of the signal-to-noise ratio, λ = log(α / σ). */
export const lambdaOf = ({ alpha, sigma }: NoiseLevel): number => Math.log(alpha / sigma);

/** The timestep of a level, which networks of EDM and of flows are not told. */
export const indexOf = (level: NoiseLevel, schedule: NoiseSchedule): number =>
  Math.round(schedule.timestepOf(ratioOf(level)));

/** ε as it follows from x and the estimate of x_0, which may have been clipped. */
export const noiseIn = ({ alpha, sigma }: NoiseLevel): Weights => ({
  x: 1 / sigma,
  sample: -alpha / sigma,
});

/** x_0 + σ ε goes straight to where the estimate of x_0 is (Euler's method), which is DDIM. */
export const straight = ({ from, to }: Step): Weights => ({
  x: to.sigma / from.sigma,
  sample: to.alpha - from.alpha * to.sigma / from.sigma,
});

/** Memories `name1`, `name2`, … of the last values; the latest is the first. */
export function remember(name: string, count: number, latest: Weights): Record<string, Weights> {
  return Object.fromEntries(
    Array.from({ length: count }, (
      _,
      i,
    ) => [`${name}${i + 1}`, i ? { [`${name}${i}`]: 1 } : latest]),
  );
}
