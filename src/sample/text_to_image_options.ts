/**
 * What a pipeline that paints texts is told, and what it makes.
 *
 * @module
 */

import type { Excess } from "../gpu/describe.ts";
import type { GuidanceOptions } from "./guidance/extrapolate.ts";
import type {
  MethodOptions,
  SampleOptions,
  SamplerOptions,
  Samples,
  SamplingStep,
} from "./options.ts";
import type { SafetyVerdict } from "./safety_check.ts";

/** Settings of a pipeline. */
export interface TextToImageOptions
  extends
    MethodOptions,
    Pick<GuidanceOptions, "interval" | "rescale">,
    Pick<SamplerOptions, "method" | "steps" | "noise" | "precision" | "weightDType"> {
  /**
   * Height and width of pictures, multiples of the autoencoder's factor, 8 in Stable Diffusion. By
   * default the denoiser's sample_size times that.
   */
  readonly size?: readonly [height: number, width: number];
  /** Pictures that are denoised together; memory grows with it. @default {1} */
  readonly batchSize?: number;
  /** The scale of guidance away from the negative text; 1 is none, which costs half. @default {7.5} */
  readonly guidance?: number;
  /** The longest side that is encoded and decoded in one piece, as of `AutoencoderOptions`. */
  readonly tile?: number;
}

/** What of a pipeline is at work. */
export type GenerationStage = "text" | "encode" | "denoise" | "decode" | "check";

/** How far pictures are. */
export interface GenerationPreview extends SamplingStep {
  /**
   * Makes what `sample` looks like, in [-1, 1], as long as the sampler waits for the callback: of latents
   * of Stable Diffusion 1 and 2 small pictures by a linear map, which costs nothing; others are decoded.
   */
  pictures(): Promise<Samples>;
}

/** Settings of one call. */
export interface GenerateOptions
  extends Pick<SampleOptions, "seed" | "first" | "start" | "signal"> {
  /** What to paint: image k takes the text k, and begins anew where there are no more. */
  readonly prompts: readonly string[];
  /** What not to paint, for all images, or for each as `prompts`. @default {""} */
  readonly negative?: string | readonly string[];
  /** How many images; by default one for each prompt. */
  readonly count?: number;
  /** A picture to begin with, or `count` of them, `[height, width, channels]` in [-1, 1]. */
  readonly init?: Samples;
  /**
   * The share of the steps that are taken with `init`, of which there are int(steps · strength). At 1
   * `init` still has its small share in the noise, but not with a mask. @default {0.6; 1 with a mask}
   */
  readonly strength?: number;
  /**
   * Where to paint anew, `[height, width]`: from 0.5 on. The latents of `init` stay elsewhere; decoding
   * them changes its pixels a little.
   */
  readonly mask?: ArrayLike<number>;
  /** Standard normals in place of those that latents of `init` are drawn by. */
  readonly encodeNoise?: Float32Array;
  /**
   * With `init` and `plms`, latents are one timestep noisier than the network is told, since that is
   * what diffusers' pipelines do; this keeps to the right noise levels. @default {false}
   */
  readonly keepsNoiseLevels?: boolean;
  /** Is told what of a prompt had no place in the text encoder, before anything is computed. */
  readonly onCut?: (prompt: string, cut: string) => void;
  /** Is told how far a stage is. */
  readonly onProgress?: (stage: GenerationStage, done: number, total: number) => void;
  /**
   * Is shown the images of a batch after some steps; sampling goes on when it is done. No safety checker
   * has seen them.
   */
  readonly onPreview?: (preview: GenerationPreview) => void | Promise<void>;
  /** Steps between two previews. @default {1} */
  readonly every?: number;
}

/** What came of a call. */
export interface Generated {
  /**
   * Pictures in [-1, 1], but for overshoot. If the signal stopped it, those that were decoded by then,
   * or what the network took the unfinished ones for; which may be none. Those that are withheld are
   * grey.
   */
  readonly images: Samples;
  /** What they were decoded from, as the denoiser sees it, those that are withheld too. */
  readonly latents: Samples;
  /** What the safety checker says of each image, if the model has one. */
  readonly verdicts?: readonly SafetyVerdict[];
}

/** The memory of the device that a stage takes, and gives back. */
export interface StagePlan {
  /** Weights included. */
  readonly bytes: number;
  /** Why it cannot be had, if it cannot. */
  readonly excess?: Excess;
}

/**
 * What every stage takes; `encode` is for what begins with a picture, and `check` there where the model
 * has a safety checker.
 */
export type TextToImagePlan =
  & Readonly<Record<Exclude<GenerationStage, "check">, StagePlan>>
  & { readonly check?: StagePlan };
