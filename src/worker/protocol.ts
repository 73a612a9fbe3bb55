/**
 * What is said between a page and the Worker that computes for it.
 *
 * @module
 */

import type { DeviceKind } from "../gpu/open.ts";
import type { ShippedModel } from "../model/shipped.ts";
import type { InpaintOptions } from "../sample/editing/inpaint.ts";
import type { GuidanceOptions } from "../sample/guidance/extrapolate.ts";
import type { SamplerOptions, StreamOptions } from "../sample/options.ts";
import type { Fields } from "../model/network.ts";
import type { Shape } from "../shape.ts";
import type { StepRecord } from "../train/records.ts";

/**
 * A model to be read in a Worker: one that comes with the package, an address, or a file; or files, of
 * which those called `.json` tell what weights of another project do not.
 */
export type ModelSource = ShippedModel | URL | Blob | readonly File[];

/** A source as it is sent: addresses are texts. */
export type SentSource = Exclude<ModelSource, URL> | { readonly href: string };

/** Settings of a sampler in a Worker: all that are no functions. */
export interface WorkerSamplerOptions
  extends Omit<SamplerOptions, "wrap" | "noise" | "parameters"> {
  /** Guides by classes, see `guided()`. */
  readonly guidance?: GuidanceOptions;
  /** Takes the conditions `known` and `mask`, see `inpaint()`. */
  readonly inpaint?: InpaintOptions;
}

/** Settings of a run in a Worker. */
export interface WorkerStreamOptions extends Omit<StreamOptions, "signal" | "onProgress"> {
  /** What to paint, for models that read: items take them in turns. */
  readonly prompts?: readonly string[];
  /** Starts from noise on the way from that of the seed to that of another one. */
  readonly walk?: {
    readonly seed: number;
    /** From 0 to 1. */
    readonly share: number;
  };
}

/** Pictures of one size to learn from. */
export interface WorkerPictures {
  /** What they are called, in the card of the model. */
  readonly name: string;
  /** How many there are. */
  readonly count: number;
  /** Rows of each. */
  readonly height: number;
  /** Columns of each. */
  readonly width: number;
  /** 1 for grey, 3 for color. */
  readonly channels: 1 | 3;
  /** `[count, height, width, channels]`, from 0 to 255. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** The class of each picture, from 0. */
  readonly labels?: ArrayLike<number>;
  /** What the classes are called. */
  readonly classes?: readonly string[];
}

/**
 * Settings of a training in a Worker: the sections of a configuration of `ddpm train`. Of the network,
 * what follows of the pictures may be left out.
 */
export interface WorkerTrainerOptions {
  /** As in the `config.json` of a UNet of diffusers. */
  readonly network: Fields;
  /** As in a `scheduler_config.json`. @default {} */
  readonly scheduler?: Fields;
  /** As for `parseTraining()`. @default {} */
  readonly training?: Fields;
  /** How pictures are varied: `{ flip: true, shift: 2 }`. @default {} */
  readonly images?: Fields;
}

/** A run of a training in a Worker. */
export interface WorkerRunOptions {
  /** How many steps. @default {Infinity} */
  readonly steps?: number;
  /** Stops after the step that is being done. */
  readonly signal?: AbortSignal;
  /** Is told how the last steps went; the next ones begin when that is done. */
  readonly onSteps?: (records: readonly StepRecord[]) => void | Promise<void>;
}

/** What is known of a model. */
export interface ModelFacts {
  /** Of an item; sides are `null` where the model takes any. */
  readonly shape: readonly (number | null)[];
  /** How many numbers it has learnt. */
  readonly parameters: number;
  /** Names of its classes, numbers where they have none. */
  readonly classes?: readonly string[] | undefined;
  /** The class that stands for none of them, if it knows that. */
  readonly none?: number | undefined;
  /** Whether it takes prompts. */
  readonly reads: boolean;
  /** How it is guided where nobody says, towards a text or a class; nothing if it cannot be. */
  readonly guidance?: GuidanceOptions | undefined;
  /** What is known of its making. */
  readonly card: Readonly<Record<string, string>>;
  /** What was taken for granted when it was read. */
  readonly notes: readonly string[];
}

/** A device to be opened in a Worker. */
export interface OpenCall {
  readonly kind: DeviceKind;
  readonly threads: number | undefined;
}

/** A training to be begun. */
export interface TrainerCall {
  readonly pictures: WorkerPictures;
  readonly options: WorkerTrainerOptions;
}

/** Steps of a training. */
export interface TrainCall {
  readonly trainer: number;
  readonly steps: number;
}

/** A sampler to be made of what a training has come to. */
export interface AverageCall {
  readonly trainer: number;
  readonly options: WorkerSamplerOptions;
}

/** A training that was begun, or gone on with. */
export interface OpenedTrainer {
  readonly id: number;
  readonly step: number;
  readonly parameters: number;
  readonly pictures: WorkerPictures;
}

/** A sampler to be made of a model, both by number. */
export interface SamplerCall {
  readonly model: number;
  readonly options: WorkerSamplerOptions;
}

/** A run of a sampler. */
export interface SampleCall {
  readonly sampler: number;
  readonly options: WorkerStreamOptions;
}

/** A device that was opened. */
export interface OpenedDevice {
  readonly kind: "gpu" | "cpu";
  readonly name: string;
}

/** A sampler that was made. */
export interface OpenedSampler {
  readonly id: number;
  readonly itemShape: Shape;
  readonly steps: number;
  readonly evaluations: number;
}
