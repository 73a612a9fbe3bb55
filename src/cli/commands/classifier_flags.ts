/**
 * The flags of guidance by a classifier, and the wrapper that they ask for.
 *
 * @module
 */

import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import { denoiserOf } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import { classifierGuided } from "../../sample/guidance/classifier_guided.ts";
import type { Shape } from "../../shape.ts";
import type { Classes, classFlags } from "./class_flags.ts";
import { loadModel } from "../run/load_model.ts";
import type { Flag, Flags } from "../terminal/flags.ts";

/** The flags of classifier guidance. */
export const classifierFlags = {
  classifier: {
    kind: "text",
    value: "MODEL",
    help: "guide towards --class by a classifier, made by train --objective classifier",
  },
  "classifier-scale": {
    kind: "number",
    min: 0,
    max: 1000,
    default: 1,
    help: "scale of the classifier's gradient",
  },
} as const satisfies Record<string, Flag>;

/** What the flags come to. */
export interface ClassifierPlan {
  readonly wrap: readonly DenoiserWrapper[];
  /** The classifier's classes, which can be asked for of any model. */
  readonly classes?: Classes;
  /** What files say of it. */
  readonly facts: Readonly<Record<string, string | number>>;
}

/**
 * Reads the flags.
 *
 * @throws {InputError} If they contradict each other, or the classifier does not fit the model.
 */
export async function planClassifier(
  flags: Flags<typeof classifierFlags & typeof classFlags>,
  model: Model,
  shape: Shape,
): Promise<ClassifierPlan> {
  const { classifier: place, "classifier-scale": scale = 1 } = flags;
  if (place === undefined) {
    if (flags["classifier-scale"] === undefined) return { wrap: [], facts: {} };
    throw new InputError("--classifier-scale is for --classifier MODEL");
  }
  if (flags.class === undefined && flags.label === undefined) {
    throw new InputError("--classifier guides towards a class: give a --class");
  }
  const classifier = await loadModel(place), wrapper = classifierGuided(classifier, { scale });
  const { network, classes } = classifier;
  const known = network.kind === "classifier"
    ? {
      classes: {
        names: Array.from({ length: network.classes }, (_, c) => classes?.[c] ?? String(c)),
      },
    }
    : {};
  // What does not go together is refused before a device is opened.
  wrapper(denoiserOf(model, shape.slice(0, -1)));
  return { wrap: [wrapper], ...known, facts: { classifier: place, classifier_scale: scale } };
}
