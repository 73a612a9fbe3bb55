/**
 * Settings of a training, and what follows from them at each step.
 *
 * @module
 */

import { z } from "zod";
import { parseWith, toCamelCase } from "../config.ts";
import type { ObjectiveConfig } from "./objective.ts";
import type { OptimizerConfig } from "./step.ts";
import type { TimestepConfig } from "./timesteps.ts";

/** How a learning rate goes on after its warm-up. */
export type LearningRateSchedule = "constant" | "cosine" | "step";

/** Settings of a training, in files with their names in snake case. */
export interface TrainingConfig extends OptimizerConfig, ObjectiveConfig, TimestepConfig {
  /** Images a step. @default {64} */
  readonly batchSize: number;
  /** Of AdamW, after the warm-up and before it decays. @default {0.0002} */
  readonly learningRate: number;
  /** Steps in which the learning rate rises from 0. @default {500} */
  readonly warmupSteps: number;
  /**
   * How the learning rate goes on after the warm-up: it stays, falls to 0 along half a cosine
   * (Loshchilov and Hutter 2017), or falls to a tenth at every multiple of `decaySteps`.
   * @default {"constant"}
   */
  readonly learningRateSchedule: LearningRateSchedule;
  /** The step at which the cosine ends, or the steps from tenth to tenth. @default {null} */
  readonly decaySteps: number | null;
  /**
   * The most that the moving average of the weights keeps of the old ones at a step; early on it
   * keeps (1 + step) / (10 + step), so that short trainings do not remember their start.
   * @default {0.999}
   */
  readonly emaDecay: number;
  /** Of weights, order, timesteps, noise and dropout. @default {0} */
  readonly seed: number;
}

const positive = z.number().positive(), share = z.number().min(0).lt(1);
const optional = (number: z.ZodNumber) => number.nullable().default(null);
const isBound = (objective: string) => objective === "vlb" || objective === "hybrid";
const schema = z.strictObject({
  batch_size: z.int().min(1).max(65536).default(64),
  learning_rate: positive.default(2e-4),
  warmup_steps: z.int().min(0).default(500),
  learning_rate_schedule: z.enum(["constant", "cosine", "step"]).default("constant"),
  decay_steps: z.int().positive().nullable().default(null),
  betas: z.tuple([share, share]).default([0.9, 0.999]),
  eps: positive.default(1e-8),
  weight_decay: z.number().min(0).default(0),
  max_grad_norm: positive.default(1),
  ema_decay: z.number().min(0).max(1).default(0.999),
  seed: z.int().min(0).default(0),
  objective: z.enum(["mse", "l1", "huber", "vlb", "hybrid"]).default("mse"),
  huber_delta: optional(positive),
  loss_weighting: z.enum(["constant", "min_snr", "edm"]).default("constant"),
  snr_gamma: optional(positive),
  timestep_sampling: z.enum(["uniform", "antithetic", "loss_second_moment", "log_normal"])
    .default("uniform"),
  log_sigma_mean: optional(z.number()),
  log_sigma_std: optional(positive),
}).refine((c) => (c.learning_rate_schedule === "constant") === (c.decay_steps === null), {
  ...{ path: ["decay_steps"], message: "goes with the schedules cosine and step, and only those" },
}).refine((c) => c.decay_steps === null || c.decay_steps > c.warmup_steps, {
  ...{ path: ["decay_steps"], message: "is not beyond warmup_steps" },
}).refine((c) => c.huber_delta === null || c.objective === "huber", {
  ...{ path: ["huber_delta"], message: "goes with the objective huber only" },
}).refine((c) => c.snr_gamma === null || c.loss_weighting === "min_snr", {
  ...{ path: ["snr_gamma"], message: "goes with the loss_weighting min_snr only" },
}).refine((c) => c.log_sigma_mean === null || c.timestep_sampling === "log_normal", {
  ...{ path: ["log_sigma_mean"], message: "goes with the timestep_sampling log_normal only" },
}).refine((c) => c.log_sigma_std === null || c.timestep_sampling === "log_normal", {
  ...{ path: ["log_sigma_std"], message: "goes with the timestep_sampling log_normal only" },
}).refine((c) => c.loss_weighting === "constant" || !isBound(c.objective), {
  path: ["loss_weighting"],
  message: "goes with the objectives mse, l1 and huber: vlb and hybrid have weights of their own",
}).refine((c) => c.timestep_sampling !== "log_normal" || !isBound(c.objective), {
  path: ["timestep_sampling"],
  message:
    "the objectives vlb and hybrid sum over all timesteps: they go with uniform, antithetic " +
    "and loss_second_moment, not with log_normal",
});

/**
 * Reads settings of a training.
 *
 * @throws {InputError} If a field is unknown or out of range.
 *
 * @example
 * ```ts
 * import { parseTraining } from "@x/ddpm";
 *
 * console.log(parseTraining({ batch_size: 32 }).learningRate);
 * ```
 */
export function parseTraining(json: unknown): TrainingConfig {
  return toCamelCase(parseWith(schema, json, "training configuration"));
}

/** The learning rate of a step, counted from 0. */
export function learningRateAt(config: TrainingConfig, step: number): number {
  const { learningRate, warmupSteps, learningRateSchedule, decaySteps } = config;
  if (step < warmupSteps) return learningRate * (step + 1) / warmupSteps;
  if (decaySteps === null) return learningRate;
  if (learningRateSchedule === "step") return learningRate * 0.1 ** Math.floor(step / decaySteps);
  const done = Math.min(1, (step - warmupSteps) / (decaySteps - warmupSteps));
  return learningRate * (1 + Math.cos(Math.PI * done)) / 2;
}
