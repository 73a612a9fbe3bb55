/**
 * Noise schedules of discrete diffusion: ᾱₜ for t from 0 to T - 1, so that
 * x_t = √ᾱₜ x_0 + √(1-ᾱₜ) ε; between timesteps too, and by σ = √((1-ᾱ)/ᾱ), the noise in units of
 * the image.
 *
 * Tables are rounded to 32-bit floats where diffusers keeps them so, which makes trajectories agree
 * with it to the fourth digit over a thousand steps.
 *
 * @module
 */

import { z } from "zod";
import { parseWith, toCamelCase, toSnakeCase } from "../config.ts";
import { InputError } from "../errors.ts";
import { makeTables, shiftTime, sigmaAt } from "./betas.ts";
import { readScheduler } from "./schedulers.ts";

/** What a network predicts of x_t = √ᾱ x_0 + √(1-ᾱ) ε. */
export type PredictionType = "epsilon" | "sample" | "v_prediction" | "edm" | "flow_prediction";
/** Which timesteps a sampler with fewer than T steps visits. */
export type TimestepSpacing = "leading" | "linspace" | "trailing";

/** A schedule and how sampling walks it: diffusers' `scheduler_config.json` in camel case. */
export interface ScheduleConfig {
  /** T. @default {1000} */
  readonly numTrainTimesteps: number;
  /** The first β. @default {0.0001} */
  readonly betaStart: number;
  /** The last β. @default {0.02} */
  readonly betaEnd: number;
  /**
   * How β goes from the first to the last: `linear` as in the DDPM paper; `scaled_linear`, also
   * called `quadratic`, linear in √β as in latent diffusion (its own files call it linear);
   * `sigmoid`; `exponential`, min(1 - e^(-β_start t), β_end) for t from 1. `squaredcos_cap_v2` is
   * the cosine of Nichol and Dhariwal 2021, and `edm` has the T noise levels from `sigmaMin` to
   * `sigmaMax` of Karras et al. 2022. `flow` goes straight from the image to noise, (1 - t) x_0 + t ε
   * at T times up to 1, moved by `shift` (Liu et al. 2023; Esser et al. 2024). `laplace` and `exp`
   * are those of diffusers. @default {"linear"}
   */
  readonly betaSchedule:
    | ("linear" | "scaled_linear" | "quadratic" | "squaredcos_cap_v2" | "sigmoid" | "laplace")
    | ("exponential" | "exp" | "edm" | "flow");
  /** T explicit βs, instead of a named schedule. @default {null} */
  readonly trainedBetas: readonly number[] | null;
  /**
   * Whether the schedule is stretched until nothing is left of the image at the last timestep (Lin
   * et al. 2023); not with `epsilon` and `edm`, which say nothing there.
   * @default {false}
   */
  readonly rescaleBetasZeroSnr: boolean;
  /** The least σ of `edm`. @default {0.002} */
  readonly sigmaMin: number;
  /** The largest σ of `edm`. @default {80} */
  readonly sigmaMax: number;
  /** The exponent of `edm` schedules. @default {7} */
  readonly rho: number;
  /** How `edm` spaces them: in σ^(1/ρ), or in log σ. @default {"karras"} */
  readonly sigmaSchedule: "karras" | "exponential";
  /** How far `flow` moves times to more noise, t to s t / (1 + (s - 1) t). @default {1} */
  readonly shift: number;
  /** Standard deviation of the images, for `edm` predictions. @default {0.5} */
  readonly sigmaData: number;
  /**
   * What the network predicts: ε, x_0, v = √ᾱ ε - √(1-ᾱ) x_0, what the preconditioning of Karras et
   * al. 2022 leaves to it (`edm`), or ε - x_0 of (1 - t) x_0 + t ε, told T t (`flow_prediction`).
   * @default {"epsilon"}
   */
  readonly predictionType: PredictionType;
  /** Whether predictions of x_0 are clipped. @default {true} */
  readonly clipSample: boolean;
  /** They are clipped to ± this. @default {1} */
  readonly clipSampleRange: number;
  /**
   * Whether they are clipped to a quantile of their own magnitudes instead, and divided by it
   * (dynamic thresholding, Saharia et al. 2022). @default {false}
   */
  readonly thresholding: boolean;
  /** The quantile. @default {0.995} */
  readonly dynamicThresholdingRatio: number;
  /** What the quantile is limited to; at least 1. @default {1} */
  readonly sampleMaxValue: number;
  /**
   * The variance of ancestral sampling: the posterior's or β, or in between as the network says in
   * a second half of its channels (`learned_range`). The logarithms change nothing but the last
   * bits. @default {"fixed_small"}
   */
  readonly varianceType:
    | ("fixed_small" | "fixed_small_log" | "fixed_large" | "fixed_large_log")
    | "learned_range";
  /** Which timesteps a sampler with fewer than T steps visits. @default {"leading"} */
  readonly timestepSpacing: TimestepSpacing;
  /** Added to `leading` timesteps. @default {0} */
  readonly stepsOffset: number;
  /** Whether DDIM and PNDM end at ᾱ = 1, or at that of timestep 0. @default {true} */
  readonly setAlphaToOne: boolean;
  /** Whether the other solvers do: `zero`, or `sigma_min`. @default {"zero"} */
  readonly finalSigmasType: "zero" | "sigma_min";
}

const flag = (value: boolean) => z.boolean().default(value);
/** Of the fields as they are in our own files; {@linkcode readScheduler} knows those of diffusers. */
export const scheduleSchema = z.strictObject({
  num_train_timesteps: z.int().min(1).max(100_000).nullable().default(null),
  beta_start: z.number().gt(0).lt(1).default(0.0001),
  beta_end: z.number().gt(0).lt(1).default(0.02),
  beta_schedule: z.enum([
    ...["linear", "scaled_linear", "quadratic", "squaredcos_cap_v2", "sigmoid", "laplace"] as const,
    ...["exponential", "exp", "edm", "flow"] as const,
  ]).default("linear"),
  trained_betas: z.array(z.number().gt(0).lt(1)).min(1).max(100_000).nullable().default(null),
  rescale_betas_zero_snr: flag(false),
  sigma_min: z.number().positive().default(0.002),
  sigma_max: z.number().positive().default(80),
  rho: z.number().positive().default(7),
  sigma_schedule: z.enum(["karras", "exponential"]).default("karras"),
  shift: z.number().positive().default(1),
  sigma_data: z.number().positive().default(0.5),
  prediction_type: z.enum(["epsilon", "sample", "v_prediction", "edm", "flow_prediction"])
    .default("epsilon"),
  clip_sample: flag(true),
  clip_sample_range: z.number().positive().default(1),
  thresholding: flag(false),
  dynamic_thresholding_ratio: z.number().gt(0).max(1).default(0.995),
  sample_max_value: z.number().min(1).default(1),
  variance_type: z.enum([
    ...["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] as const,
    "learned_range",
  ]).default("fixed_small"),
  timestep_spacing: z.enum(["leading", "linspace", "trailing"]).default("leading"),
  steps_offset: z.int().min(0).default(0),
  set_alpha_to_one: flag(true),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
});

const anyFields = z.record(z.string(), z.unknown());

/**
 * Reads a schedule as any scheduler of diffusers writes it. What is null is not given, fields that
 * start with an underscore are ignored, and so are those that set a solver of diffusers.
 *
 * @throws {InputError} If the scheduler or a field is unknown, out of range or not supported, or if
 * fields contradict each other.
 *
 * @example
 * ```ts
 * import { parseSchedule } from "@x/ddpm";
 *
 * console.log(parseSchedule({ beta_schedule: "squaredcos_cap_v2" }).numTrainTimesteps);
 * ```
 */
export function parseSchedule(json: unknown): ScheduleConfig {
  const what = "noise schedule", given = readScheduler(parseWith(anyFields, json, what));
  const fields = parseWith(scheduleSchema, given, what);
  const { trained_betas } = fields;
  const num_train_timesteps = fields.num_train_timesteps ?? trained_betas?.length ?? 1000;
  const refuse = (why: string) => new InputError(`Bad noise schedule: ${why}`);
  if (trained_betas && trained_betas.length !== num_train_timesteps) {
    throw refuse(
      `there are ${trained_betas.length} trained_betas for ${num_train_timesteps} ` +
        "num_train_timesteps",
    );
  }
  const { prediction_type: predicted } = fields;
  const zeroSnr = fields.rescale_betas_zero_snr
    ? "rescale_betas_zero_snr"
    : fields.beta_schedule === "flow" && !trained_betas
    ? "the beta_schedule flow"
    : undefined;
  if (zeroSnr && (predicted === "epsilon" || predicted === "edm")) {
    throw refuse(
      `with ${zeroSnr} a prediction_type of ${predicted} says nothing at the last timestep; ` +
        "v_prediction, sample and flow_prediction do",
    );
  }
  if (zeroSnr && num_train_timesteps < 2) {
    throw refuse(`${zeroSnr} needs at least 2 num_train_timesteps`);
  }
  if (fields.sigma_min >= fields.sigma_max) {
    throw refuse(`sigma_min ${fields.sigma_min} is not below sigma_max ${fields.sigma_max}`);
  }
  return toCamelCase({ ...fields, num_train_timesteps });
}

/** The schedule as diffusers reads it. */
export function formatSchedule(config: ScheduleConfig): Record<string, unknown> {
  const isFlow = config.betaSchedule === "flow" && config.predictionType === "flow_prediction";
  const name = isFlow ? "FlowMatchEulerDiscreteScheduler" : "DDPMScheduler";
  return { _class_name: name, ...toSnakeCase(config) };
}

/** How much noise there is: x = α x_0 + σ ε, with α² + σ² = 1. */
export interface NoiseLevel {
  /**
   * What the network is told: the timestep; log(σ/α)/4 if it predicts as `edm`; T σ/(α+σ) if it
   * predicts as `flow_prediction`. Negative for the image itself.
   */
  readonly time: number;
  /** √ᾱ. */
  readonly alpha: number;
  /** √(1-ᾱ). */
  readonly sigma: number;
}

/** Numbers of timesteps that a sampler visits, and where. */
export interface TimestepOptions {
  /** Which timesteps; by default those that the schedule says. */
  readonly spacing?: TimestepSpacing;
  /**
   * `whole` are rounded; `fractional` are not, where they are `linspace`; `open` are rounded and
   * leave out timestep 0, to which the last step goes. @default {"integer"}
   */
  readonly kind?: "integer" | "continuous" | "noZero";
}

/**
 * The tables of a schedule.
 *
 * @example
 * ```ts
 * import { NoiseSchedule, parseSchedule } from "@x/ddpm";
 *
 * const schedule = new NoiseSchedule(parseSchedule({ beta_schedule: "linear" }));
 * console.log(schedule.alphasCumprod[999]); // 0.0000403...
 * console.log(schedule.timesteps(4)); // [750, 500, 250, 0]
 * ```
 */
export class NoiseSchedule {
  /** What the tables were made of. */
  readonly config: ScheduleConfig;
  /** βₜ, the variance of the noise that step t adds, for t in [0, T). */
  readonly betas: Float64Array<ArrayBuffer>;
  /** ᾱₜ, the share of the image's variance that is left at step t, for t in [0, T). */
  readonly alphasCumprod: Float64Array<ArrayBuffer>;
  /** √((1 - ᾱₜ) / ᾱₜ), the noise in units of the image. */
  readonly sigmas: Float64Array<ArrayBuffer>;

  /** Works the tables out. */
  constructor(config: ScheduleConfig) {
    this.config = config;
    const { betas, alphasCumprod } = makeTables(config);
    this.betas = betas;
    this.alphasCumprod = alphasCumprod;
    this.sigmas = alphasCumprod.map((bar) => Math.sqrt((1 - bar) / bar));
  }

  /**
   * ᾱₜ, or 1 before the first step.
   *
   * @throws {RangeError} If there is no timestep t.
   */
  alphaCumprod(t: number): number {
    const bar = t < 0 ? 1 : this.alphasCumprod[t];
    if (bar !== undefined) return bar;
    throw new RangeError(`There is no timestep ${t}: they go from 0 to ${this.betas.length - 1}`);
  }

  /** Whether nothing is left of the image at the last timestep. */
  get isZeroSnr(): boolean {
    return this.alphasCumprod[this.alphasCumprod.length - 1] === 0;
  }

  /**
   * The noise at a timestep; between two of them with a σ between theirs.
   *
   * @param t From 0 to T - 1; negative for the image itself.
   */
  levelAt(t: number): NoiseLevel {
    const below = Math.floor(t), share = t - below;
    if (share && t > 0) {
      const [from, to] = [below, below + 1].map((i) => this.#sigma(i));
      return this.#level(t, sigmaAt(t, this.config) ?? from + share * (to - from));
    }
    const bar = this.alphaCumprod(t);
    const alpha = Math.sqrt(bar), sigma = Math.sqrt(1 - bar);
    return { time: this.#time(t, sigma / alpha), alpha, sigma };
  }

  /** The noise of x_0 + σ ε, scaled; 0 is the image itself. */
  levelOf(sigma: number): NoiseLevel {
    return this.#level(this.timestepOf(sigma), sigma);
  }

  /** The timestep with this σ, rarely whole: log σ is interpolated; the nearest if there is none. */
  timestepOf(sigma: number): number {
    const { sigmas } = this, last = sigmas.length - 1;
    if (!(sigma > sigmas[0])) return 0;
    const above = sigmas.findIndex((s) => s >= sigma);
    if (above < 0) return last;
    if (sigmas[above] === Infinity) return sigma === Infinity ? above : above - 1;
    const [from, to] = [sigmas[above - 1], sigmas[above]].map(Math.log);
    return above - (to - Math.log(sigma)) / (to - from);
  }

  #sigma(t: number): number {
    this.alphaCumprod(t);
    return this.sigmas[t];
  }

  #level(t: number, sigma: number): NoiseLevel {
    const alpha = 1 / Math.sqrt(1 + sigma ** 2);
    return { time: this.#time(t, sigma), alpha, sigma: sigma === Infinity ? 1 : sigma * alpha };
  }

  #time(t: number, sigma: number): number {
    switch (this.config.predictionType) {
      case "edm":
        return Math.log(sigma) / 4;
      case "flow_prediction":
        return t < 0 ? t : this.config.numTrainTimesteps / (1 + 1 / sigma);
      default:
        return t;
    }
  }

  /**
   * The timesteps that a sampler with `steps` steps visits, the noisiest first.
   *
   * @throws {InputError} If there are not between 1 and T of them.
   */
  timesteps(steps: number, options: TimestepOptions = {}): number[] {
    const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = this.config;
    const { spacing = timestepSpacing, kind = "integer" } = options;
    if (!(Number.isInteger(steps) && steps >= 1 && steps <= T)) {
      throw new InputError(`Cannot sample in ${steps} steps: this model allows 1 to ${T}`);
    }
    // Where 0 is left out, it counts, unless there is no timestep but 0.
    const open = kind === "noZero" && T > steps ? 1 : 0, stride = Math.floor(T / (steps + open));
    const each = [...Array(steps).keys()].reverse().map((i) => i + open);
    const last = kind === "continuous" || steps + open > 1 ? steps + open - 1 : 0;
    const round = kind === "continuous" ? (t: number) => t : roundHalfEven;
    switch (spacing) {
      case "leading": {
        // Solvers that look back need levels that differ.
        const offset = kind === "integer"
          ? stepsOffset
          : Math.min(stepsOffset, T - 1 - each[0] * stride);
        return each.map((i) => Math.min(i * stride + offset, T - 1));
      }
      case "linspace": {
        // A single one is 0 in diffusers, and the last where that would make no sense at all.
        if (!last) return [kind === "continuous" ? T - 1 : 0];
        const least = kind === "continuous" ? this.#leastTimestep : 0;
        return each.map((i) => Math.min(round(least + i * (T - 1 - least) / last), T - 1));
      }
      case "trailing":
        return each.map((i) => roundHalfEven((i + 1 - open) * T / steps) - 1);
    }
  }

  /** Where even steps of no rounding end: diffusers shifts the last one of flows twice. */
  get #leastTimestep(): number {
    const { betaSchedule, shift, numTrainTimesteps: T } = this.config;
    return betaSchedule === "flow" ? T * shiftTime(1 / T, shift) - 1 : 0;
  }

  /** The timestep that a step from t goes to; negative after the last one. */
  previousTimestep(t: number, steps: number): number {
    return t - Math.floor(this.config.numTrainTimesteps / steps);
  }
}

/** As Python and numpy round. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}
