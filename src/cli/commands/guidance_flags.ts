/**
 * The flags of guidance, and the wrappers that they ask for.
 *
 * @module
 */

import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import { denoiserOf } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import { autoguided } from "../../sample/guidance/autoguided.ts";
import type { GuidanceOptions } from "../../sample/guidance/extrapolate.ts";
import { guided } from "../../sample/guidance/guided.ts";
import { type UsualGuidance, usualGuidance } from "../../sample/guidance/usual.ts";
import type { SampleOptions } from "../../sample/options.ts";
import type { Shape } from "../../shape.ts";
import { openAnyModel } from "../run/open_model.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { type Classes, type ClassPlan, readClasses } from "./class_flags.ts";

const { classes: towardsClasses, guide: byModel } = usualGuidance;

/** What commands that guide understand. */
export const guidanceFlags = {
  guidance: {
    kind: "number",
    min: 0,
    max: 1000,
    help: `scale of guidance towards the class, 1 being none; default ${byModel.scale} for ` +
      `--guide, and ${towardsClasses.scale} between the noise levels ` +
      `${towardsClasses.interval.join(" and ")} for models trained with --label-dropout`,
  },
  "guidance-interval": {
    kind: "text",
    value: "LOW,HIGH",
    help: "guide only where σ/α is between, as 0.3,1.6: better, and cheaper",
  },
  "guidance-rescale": {
    kind: "number",
    min: 0,
    max: 1,
    help: "0 to 1: how much of the contrast that guidance adds is taken back; default 0",
  },
  "negative-class": {
    kind: "text",
    value: "NAME,...",
    help: "guide away from these classes, in turns, instead of none",
  },
  guide: {
    kind: "text",
    value: "MODEL",
    help: "guide by a weaker model, or by a state-STEP.safetensors of the same training",
  },
} as const satisfies Record<string, Flag>;

/** What flags of guidance come to. */
export interface GuidancePlan {
  readonly wrap: readonly DenoiserWrapper[];
  /** What each image's guidance is told. */
  readonly conditions: NonNullable<SampleOptions["conditions"]>;
  /** What files say of it. */
  readonly facts: Readonly<Record<string, string | number>>;
}

/**
 * Reads the flags of guidance; at scale 1 nothing is wrapped.
 *
 * @param place What the model is called.
 * @throws {InputError} If they contradict each other or the model.
 */
export async function planGuidance(
  flags: Flags<typeof guidanceFlags>,
  { model, place, shape, classes, plan }: {
    readonly model: Model;
    readonly place: string;
    readonly shape: Shape;
    readonly classes: Classes | undefined;
    readonly plan: ClassPlan;
  },
): Promise<GuidancePlan> {
  const { guide, "negative-class": negative } = flags;
  const isAsked = flags.guidance !== undefined || guide !== undefined;
  // Guidance that nobody asked for leads away from "none", and towards classes.
  const isUsual = !isAsked && classes?.none !== undefined &&
    plan.labels?.some((label) => label !== classes.none);
  if (!isAsked && !isUsual) {
    const names = ["guidance-interval", "guidance-rescale", "negative-class"] as const;
    const idle = names.find((name) => flags[name] !== undefined);
    if (idle) throw new InputError(`--${idle} is for --guidance SCALE`);
    return { wrap: [], conditions: {}, facts: {} };
  }
  const read = readGuidance(flags, isUsual ? towardsClasses : byModel);
  const { options } = read, { scale } = options;
  const facts = {
    ...read.facts,
    ...(negative === undefined ? {} : { negative_class: negative }),
    ...(guide === undefined ? {} : { guide }),
  };
  if (guide !== undefined) {
    if (negative !== undefined) {
      throw new InputError("--negative-class is for guidance by classes, and --guide by a model");
    }
    if (scale === 1) return { wrap: [], conditions: {}, facts };
    const size = shape.slice(0, -1), weak = denoiserOf(await openAnyModel(guide), size, "weak");
    const wrapper = autoguided(weak, options);
    // What does not go together is refused before a device is opened.
    wrapper(denoiserOf(model, size));
    return { wrap: [wrapper], conditions: {}, facts };
  }
  const labels = negativeLabels(negative, classes, place, plan);
  if (scale === 1) return { wrap: [], conditions: {}, facts };
  return { wrap: [guided(options)], conditions: { negative_labels: labels }, facts };
}

/**
 * Settings of guidance, and what files say of them.
 *
 * @param usual Those where nobody says.
 */
export function readGuidance(
  flags: Flags<typeof guidanceFlags>,
  usual: UsualGuidance,
): { readonly options: GuidanceOptions; readonly facts: GuidancePlan["facts"] } {
  const interval = flags["guidance-interval"] ?? usual.interval?.join(",");
  const { guidance: scale = usual.scale, "guidance-rescale": rescale } = flags;
  return {
    options: {
      scale,
      ...(interval === undefined ? {} : { interval: readInterval(interval) }),
      ...(rescale === undefined ? {} : { rescale }),
    },
    facts: {
      guidance: scale,
      ...(interval === undefined ? {} : { guidance_interval: interval }),
      ...(rescale === undefined ? {} : { guidance_rescale: rescale }),
    },
  };
}

/** What each image is guided away from. */
function negativeLabels(
  negative: string | undefined,
  classes: Classes | undefined,
  place: string,
  { count, labels = [] }: ClassPlan,
): number[] {
  if (!classes) {
    throw new InputError(
      `--guidance leads towards a class, and ${place} has none; --guide MODEL guides it by a ` +
        "weaker model",
    );
  }
  const { none } = classes;
  if (negative !== undefined) {
    const away = readClasses("negative-class", negative, classes, place);
    return Array.from({ length: count }, (_, k) => away[k % away.length]);
  }
  if (none === undefined) {
    throw new InputError(
      `--guidance leads away from no class, which ${place} does not know: it was trained without ` +
        "--label-dropout; give a --negative-class",
    );
  }
  if (labels.every((label) => label === none)) {
    throw new InputError("--guidance leads towards a class: give a --class");
  }
  return new Array(count).fill(none);
}

/** Two noise levels. */
function readInterval(text: string): [number, number] {
  const parts = text.split(",").map((part) => part.trim() ? Number(part) : NaN);
  const [low, high] = parts;
  if (parts.length === 2 && low >= 0 && low <= high) return [low, high];
  throw new InputError(
    `--guidance-interval must be two noise levels with a comma between them, the lower first, as ` +
      `0.3,1.6, not ${text}`,
  );
}
