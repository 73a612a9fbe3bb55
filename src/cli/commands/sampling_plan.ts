/**
 * From what is asked for to what is sampled, and what files say of it, by one rule for the command line
 * and the server.
 *
 * @module
 */

import { NoiseSchedule } from "../../diffusion/schedule.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import type { MethodOptions, SampleOptions, SamplerOptions } from "../../sample/options.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import type { Shape } from "../../shape.ts";
import type { Provenance } from "../../sample/provenance.ts";
import type { Flags } from "../terminal/flags.ts";
import { type Classes, classesOf, type ClassPlan } from "./class_flags.ts";
import type { ClassifierPlan } from "./classifier_flags.ts";
import type { Edit } from "./edit.ts";
import { type guidanceFlags, type GuidancePlan, planGuidance } from "./guidance_flags.ts";
import { planPromptGuidance, planPrompts, type PromptPlan, type Prompts } from "./prompt_flags.ts";
import {
  describeOptions,
  type ModelSampler,
  readOptions,
  type samplerFlags,
  samplerOfModel,
} from "./sampler_flags.ts";

/** What is asked for. */
export interface SamplingRequest {
  /** What the model is called. */
  readonly place: string;
  /** The shape of its items. */
  readonly shape: Shape;
  readonly flags: Flags<typeof samplerFlags & typeof guidanceFlags>;
  readonly seed: number;
  readonly prompts: Prompts | undefined;
  readonly edit: Edit;
  readonly judge?: ClassifierPlan;
  /** How many images, if anybody says, and how many otherwise. */
  readonly counts: { readonly count: number | undefined; readonly usual: number };
  /** Chooses classes, of those that there are. */
  chooseClasses(classes: Classes | undefined, count: number | undefined): ClassPlan;
}

/** What is sampled. */
export interface SamplingPlan {
  /** How many images. */
  readonly count: number;
  /** The settings of the sampler. */
  readonly sampler: SamplerOptions & {
    readonly method: MethodName;
    readonly wrap: readonly DenoiserWrapper[];
  };
  /** The settings of a call. */
  readonly sample: SampleOptions & {
    readonly conditions: NonNullable<SampleOptions["conditions"]>;
  };
  /** How many steps are taken. */
  readonly steps: number;
  /** What files say. */
  readonly provenance: Provenance;
  readonly classes: ClassPlan;
  /** The classes that there are. */
  readonly known: Classes | undefined;
  /** What images show, of models that read. */
  readonly said: PromptPlan | undefined;
  readonly guidance: GuidancePlan;
  /** The sampler that the model came with, where none was chosen. */
  readonly usual: ModelSampler | undefined;
}

/**
 * Plans. The sampler is the first that there is of: the edit's, the one asked for, the model's own, the
 * usual one.
 *
 * @throws {InputError} If parts contradict each other or the model.
 */
export async function planSampling(
  model: Model,
  { place, shape, flags, seed, prompts, edit, judge, counts, chooseClasses }: SamplingRequest,
): Promise<SamplingPlan> {
  const chosen = edit.sampler.method ?? (edit.variation ? "ddim" : undefined) ??
    flags.sampler as MethodName | undefined;
  const usual = chosen ? undefined : samplerOfModel(model);
  const method = chosen ?? usual?.method ?? defaultMethod;
  const given: MethodOptions = { ...usual?.options, ...readOptions(flags) };
  const options = { ...given, ...edit.sampler }, asked = flags.steps ?? edit.sampler.steps;
  const said = planPrompts(prompts, denoisingNetwork(model), place, counts);
  const known = classesOf(model, shape) ?? judge?.classes;
  const classes = chooseClasses(known, said?.count ?? counts.count), { count, labels } = classes;
  const guidance = said
    ? planPromptGuidance(flags, prompts, said)
    : await planGuidance(flags, { model, place, shape, classes: known, plan: classes });
  // Invalid options are reported before anything is compiled.
  const schedule = new NoiseSchedule(model.schedule);
  const table = makeUpdateTable(methods[method], schedule, asked, options);
  const steps = table.filter(({ endsStep = true }) => endsStep).length;
  return {
    ...{ count, steps, classes, known, said, guidance, usual },
    sampler: {
      ...options,
      ...(asked === undefined ? {} : { steps: asked }),
      ...{ method, wrap: [...guidance.wrap, ...judge?.wrap ?? [], ...edit.wrap] },
    },
    sample: {
      ...{ count, seed, ...edit.sample },
      ...(labels ? { labels } : {}),
      conditions: { ...said?.conditions, ...guidance.conditions, ...edit.sample.conditions },
    },
    provenance: {
      ...{ model: place, seed, steps, sampler: method },
      ...describeOptions(given),
      ...(prompts ? { prompt: prompts.texts.join(" | ") } : {}),
      ...(prompts?.negative ? { negative: prompts.negative } : {}),
      ...{ ...guidance.facts, ...judge?.facts, ...edit.provenance },
    },
  };
}
