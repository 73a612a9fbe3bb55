/**
 * The pictures of a model, by the flags that `sample` has too.
 *
 * @module
 */

import { NoiseSchedule } from "../../diffusion/schedule.ts";
import type { Device } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { SampleOptions, SamplerOptions, Samples } from "../../sample/options.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import type { Shape } from "../../shape.ts";
import { classesOf, type classFlags, planClasses } from "../commands/class_flags.ts";
import { type guidanceFlags, planGuidance } from "../commands/guidance_flags.ts";
import { planPromptGuidance, planPrompts, type promptFlags } from "../commands/prompt_flags.ts";
import { describeOptions, readOptions, type samplerFlags } from "../commands/sampler_flags.ts";
import { createSampler, type PictureSampler } from "../commands/samplers.ts";
import type { Flags } from "../terminal/flags.ts";
import type { AskedTexts } from "./asked_texts.ts";
import type { ImageSource } from "./image_source.ts";
import { join } from "../terminal/sampling_run.ts";

/** Images that are sampled together. */
const BATCH = 64;

/** The flags of `eval` about sampling. */
export type SamplingFlags = Flags<
  & typeof samplerFlags
  & typeof classFlags
  & typeof promptFlags
  & typeof guidanceFlags
  & {
    readonly batch: { readonly kind: "integer"; readonly help: string };
    readonly seed: { readonly kind: "integer"; readonly help: string };
  }
>;

/** A sampling that was planned. */
export interface SampledImages {
  /** What is told of it. */
  readonly facts: Readonly<Record<string, string | number>>;
  /** The text of each image, of models that read. */
  readonly texts?: readonly string[];
  /** What its classes are called, where each image has one. */
  readonly classes?: readonly string[];
  /** What is to be said of it, in words. */
  readonly notice?: string;
  /** The pictures; compiles a sampler, which the stack owns. */
  open(device: Device, stack: DisposableStack): Promise<ImageSource>;
}

/**
 * Plans pictures of a model: those of the numbers `first` to `first + count` of a seed.
 *
 * @param shape Of the model's items: pictures, or latents of these.
 * @param place What the model is called.
 * @param asked Texts that images take in turns, the first one that of the number 0.
 * @throws {InputError} If the flags contradict each other, or the model.
 */
export async function planSampling(
  flags: SamplingFlags,
  { model, place, shape, first, count, asked }: {
    readonly model: Model;
    readonly place: string;
    readonly shape: Shape;
    readonly first: number;
    readonly count: number;
    readonly asked: AskedTexts | undefined;
  },
): Promise<SampledImages> {
  const { seed = 0 } = flags, method = (flags.sampler ?? defaultMethod) as MethodName;
  const total = first + count, known = classesOf(model, shape);
  // Classes go by the number of the image, whoever makes it.
  const counts = { count: total, usual: total, seed, prefersNone: false };
  const plan = planClasses(flags, known, place, counts);
  const inTurn = <T>(values: ArrayLike<T>) =>
    Array.from({ length: count }, (_, k) => values[(first + k) % values.length]);
  const prompts = asked && { ...asked, texts: inTurn(asked.texts) };
  const said = prompts &&
    planPrompts(prompts, denoisingNetwork(model), place, { count, usual: count });
  const guidance = said
    ? planPromptGuidance(flags, prompts, said)
    : await planGuidance(flags, { model, place, shape, classes: known, plan });
  const options = readOptions(flags);
  const schedule = new NoiseSchedule(model.schedule);
  const table = makeUpdateTable(methods[method], schedule, flags.steps, options);
  const steps = table.filter(({ endsStep = true }) => endsStep).length;
  const settings: SamplerOptions = {
    ...{ ...options, method, wrap: guidance.wrap },
    ...(flags.steps === undefined ? {} : { steps: flags.steps }),
  };
  const painted = paintedShape(model, shape);
  const labels = plan.labels?.slice(first), text = flags.class ?? flags.label;
  const isAsked = labels?.every((c) => c !== known?.none);
  // What a classifier should see.
  const seen = isAsked ? labels : asked?.labels && inTurn(asked.labels);
  const classes = isAsked ? known?.names : asked?.classes;
  return {
    facts: {
      ...{ sampler: method, steps, seed, ...describeOptions(options), ...guidance.facts },
      ...(text === undefined ? {} : { class: text }),
      ...asked?.facts,
    },
    ...(said ? { texts: said.texts } : {}),
    ...(seen && classes ? { classes } : {}),
    ...(plan.notice ? { notice: `class: ${plan.notice}` } : {}),
    async open(device, stack) {
      const batchSize = Math.min(flags.batch ?? BATCH, count);
      const make = async (batchSize: number) =>
        stack.use(await createSampler(device, model, { ...settings, batchSize }));
      const sampler = await make(batchSize);
      const sample = async (
        sampler: PictureSampler,
        from: number,
        n: number,
        rest: Pick<SampleOptions, "signal" | "onProgress">,
      ): Promise<Samples> => {
        const images = await sampler.sample({
          ...{ count: n, seed, first: first + from, ...rest },
          ...(labels ? { labels: labels.slice(from, from + n) } : {}),
          conditions: said
            ? { ...partOf(said.conditions, count, from, n), ...guidance.conditions }
            : partOf(guidance.conditions, total, first + from, n),
        });
        rest.signal?.throwIfAborted();
        return images;
      };
      return {
        ...{ name: place, count, shape: painted },
        ...(seen ? { labels: seen } : {}),
        async *batches({ signal, onProgress }) {
          for (let at = 0; at < count; at += batchSize) {
            const n = Math.min(batchSize, count - at);
            yield await sample(sampler, at, n, {
              ...(signal ? { signal } : {}),
              onProgress: (done, total) => onProgress?.(at + n * done / total, count),
            });
          }
        },
        async pick(places) {
          const single = await make(1), parts: Samples[] = [];
          for (const at of places) parts.push(await sample(single, at, 1, {}));
          return join(parts);
        },
      };
    },
  };
}

/** The conditions of some of `total` images, of which they have the values one after the other. */
function partOf(
  conditions: NonNullable<SampleOptions["conditions"]>,
  total: number,
  from: number,
  count: number,
): NonNullable<SampleOptions["conditions"]> {
  const cut = Object.entries(conditions).map(([name, values]) => {
    const each = values.length / total;
    return [name, Array.prototype.slice.call(values, from * each, (from + count) * each)] as const;
  });
  return Object.fromEntries(cut);
}
