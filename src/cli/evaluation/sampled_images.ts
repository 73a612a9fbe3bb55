/**
 * The pictures of a model, by the flags that `sample` has too.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { NoiseSchedule } from "../../diffusion/schedule.ts";
import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import type { SampleOptions, SamplerOptions, Samples } from "../../sample/options.ts";
import type { Sampler } from "../../sample/sampler.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { makeUpdateTable } from "../../sample/timesteps.ts";
import type { Shape } from "../../shape.ts";
import { classesOf, type classFlags, planClasses } from "../commands/class_flags.ts";
import { type guidanceFlags, planGuidance } from "../commands/guidance_flags.ts";
import { describeOptions, readOptions, type samplerFlags } from "../commands/sampler_flags.ts";
import { createSampler } from "../commands/samplers.ts";
import type { Flags } from "../terminal/flags.ts";
import type { ImageSource } from "./image_source.ts";
import { join } from "../terminal/sampling_run.ts";

/** Images that are sampled together. */
const BATCH = 64;

/** The flags of `eval` about sampling. */
export type SamplingFlags = Flags<
  & typeof samplerFlags
  & typeof classFlags
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
 * @param place What the model is called.
 * @throws {InputError} If the flags contradict each other, or the model.
 */
export async function planSampling(
  flags: SamplingFlags,
  { model, place, shape, first, count }: {
    readonly model: Model;
    readonly place: string;
    readonly shape: Shape;
    readonly first: number;
    readonly count: number;
  },
): Promise<SampledImages> {
  const { seed = 0 } = flags, method = (flags.sampler ?? defaultMethod) as MethodName;
  const total = first + count, known = classesOf(model, shape);
  // Classes go by the number of the image, whoever makes it.
  const counts = { count: total, usual: total, seed, prefersNone: false };
  const plan = planClasses(flags, known, place, counts);
  const guidance = await planGuidance(flags, { model, place, shape, classes: known, plan });
  const options = readOptions(flags);
  const schedule = new NoiseSchedule(model.schedule);
  const table = makeUpdateTable(methods[method], schedule, flags.steps, options);
  const steps = table.filter(({ endsStep = true }) => endsStep).length;
  const settings: SamplerOptions = {
    ...{ ...options, method, wrap: guidance.wrap },
    ...(flags.steps === undefined ? {} : { steps: flags.steps }),
  };
  const labels = plan.labels?.slice(first), isAsked = labels?.every((c) => c !== known?.none);
  const text = flags.class ?? flags.label;
  return {
    facts: {
      ...{ sampler: method, steps, seed, ...describeOptions(options), ...guidance.facts },
      ...(text === undefined ? {} : { class: text }),
    },
    ...(isAsked ? { classes: known!.names } : {}),
    ...(plan.notice ? { notice: `class: ${plan.notice}` } : {}),
    async open(device, stack) {
      const batchSize = Math.min(flags.batch ?? BATCH, count);
      const make = async (batchSize: number) =>
        stack.use(await createSampler(device, model, { ...settings, batchSize }));
      const sampler = await make(batchSize);
      const sample = async (
        sampler: Sampler,
        from: number,
        n: number,
        rest: Pick<SampleOptions, "signal" | "onProgress">,
      ): Promise<Samples> => {
        const images = await sampler.sample({
          ...{ count: n, seed, first: first + from, ...rest },
          ...(labels ? { labels: labels.slice(from, from + n) } : {}),
          conditions: partOf(guidance.conditions, total, first + from, n),
        });
        rest.signal?.throwIfAborted();
        return images;
      };
      return {
        ...{ name: place, count, shape },
        ...(isAsked ? { labels: labels! } : {}),
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

/** The conditions of some images: those that have a value for each, cut. */
function partOf(
  conditions: NonNullable<SampleOptions["conditions"]>,
  total: number,
  from: number,
  count: number,
): NonNullable<SampleOptions["conditions"]> {
  const cut = Object.entries(conditions).map(([name, values]) => {
    if (values.length !== total) throw new InputError(`Cannot cut the condition ${name}`);
    return [name, Array.from(values).slice(from, from + count)] as const;
  });
  return Object.fromEntries(cut);
}
