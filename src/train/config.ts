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

/**
 * How much the moving average of the weights keeps of the old ones at step n, from 0: `constant`
 * always `emaDecay`, as Ho et al. 2020 do; `warmup` (1 + n) / (10 + n) and `power` 1 - (1 + n)^-p, but
 * no more than `emaDecay`, so that short trainings do not remember their start.
 */
export type EmaSchedule = "constant" | "warmup" | "power";

/** Settings of a training, in files with their names in snake case. */
export interface TrainingConfig extends OptimizerConfig, ObjectiveConfig, TimestepConfig {
  /** Images a step. @default {64} */
  readonly batchSize: number;
  /**
   * Images that are computed at a time, a divisor of `batchSize`; all of them if `null`. Gradients
   * add up to that of the whole batch, and memory is that of the part. @default {null}
   */
  readonly microBatch: number | null;
  /**
   * Whether tensors within the blocks of the network are not kept for the gradients, but computed
   * again: less memory for about a third more work. Without it, a step that does not fit the device
   * does so all the same. @default {false}
   */
  readonly gradientCheckpointing: boolean;
  /** Of the optimizer, after the warm-up and before it decays. @default {0.0002} */
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
  /** The most that the moving average of the weights keeps of the old ones. @default {0.999} */
  readonly emaDecay: number;
  /** How much it keeps at each step. @default {"warmup"} */
  readonly emaSchedule: EmaSchedule;
  /** p of `power`; 2/3 if `null`. @default {null} */
  readonly emaPower: number | null;
  /**
   * The probability that an image is shown without its class and caption, which makes guidance
   * without a classifier possible (Ho and Salimans 2022). The last class of the network then stands
   * for none.
   * @default {0}
   */
  readonly labelDropout: number;
  /** The share of the images that is held out, to measure the loss on them. @default {0} */
  readonly heldOut: number;
  /** Of weights, order, timesteps, noise and dropout. @default {0} */
  readonly seed: number;
}

const positive = z.number().positive(), share = z.number().min(0).lt(1);
const optional = (number: z.ZodNumber) => number.nullable().default(null);
const isBound = (objective: string) => objective === "vlb" || objective === "hybrid";
const learnsNoise = (objective: string) =>
  !["classifier", "autoencoder", "contrastive"].includes(objective);
const seesNoNoise = (objective: string) =>
  objective === "autoencoder" || objective === "contrastive";
const looksAtBatches = (sampling: string) =>
  sampling === "antithetic" || sampling === "loss_second_moment";
/** Of the fields as they are in files. */
export const trainingSchema = z.strictObject({
  batch_size: z.int().min(1).max(65536).default(64),
  micro_batch: z.int().min(1).nullable().default(null),
  gradient_checkpointing: z.boolean().default(false),
  optimizer: z.enum(["adamw", "adam"]).default("adamw"),
  learning_rate: positive.default(2e-4),
  warmup_steps: z.int().min(0).default(500),
  learning_rate_schedule: z.enum(["constant", "cosine", "step"]).default("constant"),
  decay_steps: z.int().positive().nullable().default(null),
  betas: z.tuple([share, share]).default([0.9, 0.999]),
  eps: positive.default(1e-8),
  weight_decay: z.number().min(0).default(0),
  max_grad_norm: positive.default(1),
  precision: z.enum(["f32", "f16"]).default("f32"),
  ema_decay: z.number().min(0).max(1).default(0.999),
  ema_schedule: z.enum(["constant", "warmup", "power"]).default("warmup"),
  ema_power: optional(positive),
  label_dropout: share.default(0),
  held_out: z.number().min(0).max(0.5).default(0),
  seed: z.int().min(0).default(0),
  objective: z.enum([
    ...["mse", "l1", "huber", "vlb", "hybrid", "classifier", "autoencoder", "contrastive"] as const,
  ]).default("mse"),
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
}).refine((c) => c.micro_batch === null || c.batch_size % c.micro_batch === 0, {
  ...{ path: ["micro_batch"], message: "does not divide batch_size" },
}).refine((c) => c.ema_power === null || c.ema_schedule === "power", {
  ...{ path: ["ema_power"], message: "goes with the ema_schedule power only" },
}).refine((c) => c.micro_batch === null || !looksAtBatches(c.timestep_sampling), {
  path: ["micro_batch"],
  message: "goes with the timestep_sampling uniform and log_normal, which draw image by image",
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
}).refine((c) => learnsNoise(c.objective) || c.loss_weighting === "constant", {
  path: ["loss_weighting"],
  message: "goes with the objectives mse, l1 and huber: classifiers count all noise alike, and " +
    "autoencoders and dual encoders see none",
}).refine((c) => learnsNoise(c.objective) || !c.label_dropout, {
  path: ["label_dropout"],
  message: "makes no sense with the objectives classifier, autoencoder and contrastive",
}).refine((c) => !seesNoNoise(c.objective) || c.timestep_sampling === "uniform", {
  path: ["timestep_sampling"],
  message:
    "makes no sense with the objectives autoencoder and contrastive, which know no timesteps",
}).refine((c) => c.objective !== "contrastive" || c.micro_batch === null && c.batch_size > 1, {
  path: ["batch_size"],
  message: "the objective contrastive compares the images of a batch: it takes two at the least, " +
    "and no micro_batch",
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
  return toCamelCase(parseWith(trainingSchema, json, "training configuration"));
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

/** The share of the old weights that their moving average keeps at a step, counted from 0. */
export function emaDecayAt(
  { emaDecay, emaSchedule, emaPower }: TrainingConfig,
  step: number,
): number {
  switch (emaSchedule) {
    case "constant":
      return emaDecay;
    case "warmup":
      return Math.min(emaDecay, (1 + step) / (10 + step));
    case "power":
      return Math.min(emaDecay, 1 - (1 + step) ** -(emaPower ?? 2 / 3));
  }
}
