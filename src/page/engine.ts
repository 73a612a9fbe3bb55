/**
 * What the page needs of whatever computes: a Worker of its own, or a server.
 *
 * @module
 */

import type { MethodName } from "../sample/solvers/mod.ts";
import type { UsualGuidance } from "../sample/guidance/usual.ts";
import { type Samples, strengthOf } from "../sample/options.ts";
import { nameClasses, type Provenance } from "../sample/provenance.ts";
import type { ModelFacts } from "../worker/protocol.ts";

/** Why an engine cannot compute at all; the next try asks it anew. */
export class EngineError extends Error {
  override name = "EngineError";
}

/** What is to be made; all of it is plain data. */
export interface Job {
  /** A name among those of {@linkcode Engine.models}. */
  readonly model: string;
  readonly method: MethodName;
  readonly steps: number;
  readonly seed: number;
  readonly count: number;
  /** A class for each, for models that have classes, and what these are called. */
  readonly labels?: readonly number[];
  readonly classes?: readonly string[];
  /** What to paint, for models that read. */
  readonly prompt?: string;
  /** Guidance, where there is anything to lead towards; at scale 1 there is none. */
  readonly guidance?: UsualGuidance;
  /** Begins with this image, of which `strength` says how much changes. */
  readonly init?: Samples;
  readonly strength?: number;
  /** With `init`: 1 where it is painted anew, `[height, width]`. */
  readonly mask?: Float32Array;
  /** Starts on the way to another seed's noise. */
  readonly walk?: { readonly seed: number; readonly share: number };
}

/** What the file of a picture says, by the names that `ddpm sample` writes. */
export function provenanceOf(job: Job, { withheld }: Pick<Made, "withheld"> = {}): Provenance {
  const { model, seed, steps, method: sampler, count, prompt, guidance, classes, walk } = job;
  const drawn = "a drawing";
  return {
    ...{ model, seed, steps, sampler, count },
    ...(prompt ? { prompt } : {}),
    ...(guidance ? { guidance: guidance.scale } : {}),
    ...(guidance?.interval ? { guidance_interval: guidance.interval.join(",") } : {}),
    ...(job.init ? { init: drawn, strength: strengthOf(job) } : {}),
    ...(job.mask ? { mask: drawn } : {}),
    ...(walk ? { walk: `${walk.share} to seed ${walk.seed}` } : {}),
    ...(classes ? { class: nameClasses(classes) } : {}),
    ...(withheld ? { withheld: [...withheld.keys()].join(",") } : {}),
  };
}

/** How far a job is. */
export interface Step {
  readonly step: number;
  readonly steps: number;
  /** What the network takes x_0 for; nothing where it is not shown. */
  readonly sample?: Samples;
  /** x_t, where the engine tells it. */
  readonly noisy?: Samples;
}

/** What a job comes to. */
export interface Made extends Samples {
  /** By the numbers of images that are grey instead, why, in words. */
  readonly withheld?: ReadonlyMap<number, string>;
}

/** Something that computes. */
export interface Engine {
  /** The models that it has, by name. */
  readonly models: readonly string[];
  /** What was added to them. */
  readonly files: ReadonlyMap<string, readonly File[]>;
  /** Gets a model ready, if it is not yet. */
  open(model: string): Promise<ModelFacts>;
  /** Takes a model of the user's; returns the name that it has from now on. */
  add(files: readonly File[]): Promise<string>;
  /** Does a job, and tells each step; ends with the images, fewer if it was aborted. */
  run(job: Job, signal: AbortSignal): AsyncGenerator<Step, Made>;
  /** What computes, in words. */
  about(): Promise<string>;
  /** Ends everything; the next call begins anew. */
  reset(): void;
}
