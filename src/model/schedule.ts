/**
 * Noise schedules of discrete diffusion: βₜ, and ᾱₜ = ∏(1 - βₛ), for t from 0 to T - 1.
 *
 * Tables are rounded to 32-bit floats where diffusers keeps them so, which makes trajectories agree
 * with it to the fourth digit over a thousand steps.
 *
 * @module
 */

import { z } from "zod";
import { parseWith, toCamelCase, toSnakeCase } from "../config.ts";
import { InputError } from "../errors.ts";

/** A schedule and how sampling walks it: diffusers' `scheduler_config.json` in camel case. */
export interface ScheduleConfig {
  /** T. @default {1000} */
  readonly numTrainTimesteps: number;
  /** The first β. @default {0.0001} */
  readonly betaStart: number;
  /** The last β. @default {0.02} */
  readonly betaEnd: number;
  /**
   * `linear` as in the DDPM paper, `scaled_linear` in √β as in latent diffusion,
   * `squaredcos_cap_v2` the cosine of Nichol and Dhariwal 2021. @default {"linear"}
   */
  readonly betaSchedule: "linear" | "scaled_linear" | "squaredcos_cap_v2" | "sigmoid";
  /**
   * What the network predicts of x_t = √ᾱ x_0 + √(1-ᾱ) ε: ε, x_0, or v = √ᾱ ε - √(1-ᾱ) x_0.
   * @default {"epsilon"}
   */
  readonly predictionType: "epsilon" | "sample" | "v_prediction";
  /** Whether predictions of x_0 are clipped. @default {true} */
  readonly clipSample: boolean;
  /** They are clipped to ± this. @default {1} */
  readonly clipSampleRange: number;
  /** The variance of ancestral sampling: the posterior's, or β. @default {"fixed_small"} */
  readonly varianceType: "fixed_small" | "fixed_small_log" | "fixed_large";
  /** Which timesteps a sampler with fewer than T steps visits. @default {"leading"} */
  readonly timestepSpacing: "leading" | "linspace" | "trailing";
  /** Added to `leading` timesteps. @default {0} */
  readonly stepsOffset: number;
  /** Whether DDIM ends at ᾱ = 1, or at that of timestep 0. @default {true} */
  readonly setAlphaToOne: boolean;
}

const schema = z.object({
  num_train_timesteps: z.int().min(1).max(100_000).default(1000),
  beta_start: z.number().gt(0).lt(1).default(0.0001),
  beta_end: z.number().gt(0).lt(1).default(0.02),
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
    .default("linear"),
  prediction_type: z.enum(["epsilon", "sample", "v_prediction"]).default("epsilon"),
  clip_sample: z.boolean().default(true),
  clip_sample_range: z.number().positive().default(1),
  variance_type: z.enum(["fixed_small", "fixed_small_log", "fixed_large"]).default("fixed_small"),
  timestep_spacing: z.enum(["leading", "linspace", "trailing"]).default("leading"),
  steps_offset: z.int().min(0).default(0),
  set_alpha_to_one: z.boolean().default(true),
  trained_betas: z.null({ error: "explicit betas are not supported" }).optional(),
  thresholding: z.literal(false, { error: "dynamic thresholding is not supported" }).optional(),
  rescale_betas_zero_snr: z.literal(false, { error: "is not supported" }).optional(),
});

/**
 * Reads a schedule as diffusers writes it. Fields of other schedulers are ignored.
 *
 * @throws {InputError} If a field is out of range, or asks for what is not supported.
 *
 * @example
 * ```ts
 * import { parseSchedule } from "@x/ddpm";
 *
 * console.log(parseSchedule({ beta_schedule: "squaredcos_cap_v2" }).numTrainTimesteps);
 * ```
 */
export function parseSchedule(json: unknown): ScheduleConfig {
  const fields = parseWith(schema, json, "noise schedule");
  const { trained_betas: _b, thresholding: _t, rescale_betas_zero_snr: _r, ...rest } = fields;
  return toCamelCase(rest);
}

/** The schedule as diffusers reads it. */
export function formatSchedule(config: ScheduleConfig): Record<string, unknown> {
  return { _class_name: "DDPMScheduler", ...toSnakeCase(config) };
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

  /** Works the tables out. */
  constructor(config: ScheduleConfig) {
    this.config = config;
    this.betas = makeBetas(config).map(Math.fround);
    let product = 1;
    this.alphasCumprod = this.betas.map((beta) => Math.fround(product *= Math.fround(1 - beta)));
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

  /**
   * The timesteps that a sampler with `steps` steps visits, the noisiest first.
   *
   * @throws {InputError} If there are not between 1 and T of them.
   */
  timesteps(steps: number): number[] {
    const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = this.config;
    if (!(Number.isInteger(steps) && steps >= 1 && steps <= T)) {
      throw new InputError(`Cannot sample in ${steps} steps: this model allows 1 to ${T}`);
    }
    const each = [...Array(steps).keys()].reverse();
    switch (timestepSpacing) {
      case "leading":
        return each.map((i) => Math.min(i * Math.floor(T / steps) + stepsOffset, T - 1));
      case "linspace":
        return each.map((i) => steps === 1 ? 0 : roundHalfEven(i * (T - 1) / (steps - 1)));
      case "trailing":
        return each.map((i) => roundHalfEven((i + 1) * T / steps) - 1);
    }
  }

  /** The timestep that a step from t goes to; negative after the last one. */
  previousTimestep(t: number, steps: number): number {
    return t - Math.floor(this.config.numTrainTimesteps / steps);
  }
}

function makeBetas(config: ScheduleConfig): Float64Array<ArrayBuffer> {
  const { numTrainTimesteps: T, betaStart, betaEnd, betaSchedule } = config;
  const line = (from: number, to: number) =>
    Float64Array.from(
      { length: T },
      (_, t) => Math.fround(T === 1 ? from : from + t * (to - from) / (T - 1)),
    );
  switch (betaSchedule) {
    case "linear":
      return line(betaStart, betaEnd);
    case "scaled_linear":
      return line(Math.sqrt(betaStart), Math.sqrt(betaEnd)).map((root) => root ** 2);
    case "sigmoid":
      return line(-6, 6).map((x) => betaStart + (betaEnd - betaStart) / (1 + Math.exp(-x)));
    case "squaredcos_cap_v2": {
      const alphaBar = (time: number) => Math.cos((time + 0.008) / 1.008 * Math.PI / 2) ** 2;
      return Float64Array.from(
        { length: T },
        (_, t) => Math.min(1 - alphaBar((t + 1) / T) / alphaBar(t / T), 0.999),
      );
    }
  }
}

/** As Python and numpy round. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}
