/**
 * What samplers are told, and what they make.
 *
 * @module
 */

import type { DenoiserWrapper, Query } from "../diffusion/denoiser.ts";
import { InputError } from "../errors.ts";
import type { Precision, TensorBuffer } from "../gpu/device.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { TimestepSpacing } from "../diffusion/schedule.ts";
import type { WeightDType } from "../model/parameters.ts";
import { formatShape, type Shape } from "../shape.ts";
import type { Resampling } from "./editing/resample.ts";
import type { MethodName } from "./solvers/mod.ts";

/** Noise levels that are no timesteps: {@linkcode karrasSigmas} and the others. */
export type SigmaSpacing = "karras" | "exponential" | "polyexponential" | "vp";

/** Settings of sampling methods; each refuses those that it does not have. */
export interface MethodOptions {
  /** Share of the noise that ancestral sampling would add, 0 to 1, for `ddim` only. @default {0} */
  readonly eta?: number;
  /**
   * Noise that is added and taken away again over a run, S_churn of Karras et al. 2022, for `heun`
   * and `edm`. @default {0}
   */
  readonly churn?: number;
  /** The least and the largest σ at which `churn` adds noise. @default {[0, Infinity]} */
  readonly churnRange?: readonly [min: number, max: number];
  /** Standard deviation of the noise that `churn` adds, S_noise. @default {1} */
  readonly churnNoise?: number;
  /** Which timesteps are visited. By default those that the method or the schedule says. */
  readonly spacing?: TimestepSpacing;
  /** Visits noise levels instead of evenly spaced timesteps. */
  readonly sigmas?: SigmaSpacing;
  /** The timesteps to visit, by hand: falling, from T - 1 to 0. Their number is that of steps. */
  readonly timesteps?: readonly number[];
}

/** Settings of a sampler. */
export interface SamplerOptions extends MethodOptions {
  /** How to go from noise to images. @default {"dpmpp_2m_sde"} */
  readonly method?: MethodName;
  /** 1 to T; by default 20 for multistep DPM-Solver++, 18 for `edm`, 4 for `lcm`, 50 for others. */
  readonly steps?: number;
  /** Images that are computed together; memory grows with it. @default {16} */
  readonly batchSize?: number;
  /** Height and width, or what else an item has before channels; by default the model's. */
  readonly size?: readonly number[];
  /** Goes back up some noise levels and down again, as inpainting wants it. */
  readonly resample?: Resampling;
  /**
   * How standard normals of a shape are drawn, those of the start and those of steps, from streams of
   * their own. @default {randomNormal}
   */
  readonly noise?: (
    shape: Shape,
    random: RandomState,
    stream: number,
    conditions: Query["conditions"],
  ) => Tensor;
  /** Guidance and edits, the first one next to the network. @default {[]} */
  readonly wrap?: readonly DenoiserWrapper[];
  /**
   * How activations are kept on the device: `f16` takes half the memory for them, and a GPU with
   * 16-bit floats. @default {"f32"}
   */
  readonly precision?: Precision;
  /**
   * How the weights of a model lie on the device: `f16` and `bf16` take half the memory, on any device,
   * and some time to be widened. @default {"f32"}
   */
  readonly weightDType?: WeightDType;
  /** Weights that are on the device already, by the names of their inputs, as a trainer's average. */
  readonly parameters?: Readonly<Record<string, TensorBuffer>>;
}

/** Settings of one call. */
export interface SampleOptions {
  /** How many items to make. @default {1} */
  readonly count?: number;
  /** Image k of a seed is the same whatever the count and the batch size. @default {0} */
  readonly seed?: number;
  /** The number k of the first image. @default {0} */
  readonly first?: number;
  /** A class for each item, for models that have classes; integers in [0, classes). */
  readonly labels?: readonly number[];
  /**
   * What conditions are, by name: values of all items one after the other, or of one item for all.
   * Those that are not given stand for "none", if there is such a value.
   */
  readonly conditions?: Readonly<Record<string, ArrayLike<number>>>;
  /**
   * An item, or `count` of them, to begin with instead of noise alone: noise is added up to where
   * `strength` says that sampling begins (Meng et al., "SDEdit", 2022).
   */
  readonly init?: Samples;
  /**
   * The share of the steps that are taken with `init`: 0 returns it, 1 ignores it.
   * @default {0.6}
   */
  readonly strength?: number;
  /**
   * How many of the steps to leave out, in place of `strength`; `init` has its share in what the others
   * begin with even if it is none.
   */
  readonly skip?: number;
  /**
   * Whether to do with `init` and `plms` what diffusers' pipelines do: their list of timesteps has the
   * second one twice, and they cut the list, so that where the two are cut off, what the network sees is
   * one timestep noisier than it is told. @default {false}
   */
  readonly cutsTimesteps?: boolean;
  /** `count` items to start from instead of noise: noise of your own, or images to invert. */
  readonly start?: Samples;
  /** Stops between evaluations of the network; what is done so far is returned. */
  readonly signal?: AbortSignal;
  /** Is told how many of all steps of all batches are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Settings of a stream. */
export interface StreamOptions extends SampleOptions {
  /** Steps between two that are shown; the last one of a batch always is. @default {1} */
  readonly every?: number;
}

/** How far the items of a batch are. */
export interface SamplingStep {
  /** Which of all images the first of the batch is, from 0. */
  readonly index: number;
  /** How many steps are done, from 1. */
  readonly step: number;
  /** How many steps there are. */
  readonly steps: number;
  /** x_t, in the scale √ᾱ x_0 + √(1-ᾱ) ε. */
  readonly noisy: Samples;
  /** What the network took x_0 for. */
  readonly sample: Samples;
}

/** Items as a network sees them, pictures mostly. */
export interface Samples {
  /** How many there are. */
  readonly count: number;
  /** Of each: `[height, width, channels]` for pictures, with 1 channel for grey and 3 for colour. */
  readonly shape: Shape;
  /** `[count, ...shape]`, in [-1, 1]; more where x_t is still noisy. */
  readonly data: Float32Array<ArrayBuffer>;
}

/**
 * Height, width and channels of items that are pictures.
 *
 * @throws {InputError} If they are something else.
 */
export function pictureSize(
  { shape }: Pick<Samples, "shape">,
): { readonly height: number; readonly width: number; readonly channels: number } {
  const [height, width, channels] = shape;
  if (shape.length === 3) return { height, width, channels };
  throw new InputError(`Items of shape ${formatShape(shape)} are no pictures`);
}

/** How much of an image to begin with changes: where nobody says, all that a mask leaves, or 0.6. */
export const strengthOf = (
  { strength, mask }: { readonly strength?: number | undefined; readonly mask?: unknown },
): number => strength ?? (mask ? 1 : 0.6);

/** @throws {InputError} If it is no integer from `least` on. */
export function checkInteger(value: number, least: number, what: string): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new InputError(
    `Cannot sample: ${what} is ${value}, but must be an integer from ${least} on`,
  );
}
