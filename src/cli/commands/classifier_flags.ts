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
import { loadModel } from "../terminal/files.ts";
import type { Flag, Flags } from "../terminal/flags.ts";

/** What `sample` understands of classifiers. */
export const classifierFlags = {
  classifier: {
    kind: "text",
    value: "MODEL",
    help: "guide towards the class by what train --objective classifier made",
  },
  "classifier-scale": {
    kind: "number",
    min: 0,
    max: 1000,
    help: "how much the classifier counts; default 1",
  },
} as const satisfies Record<string, Flag>;

/** What the flags come to. */
export interface ClassifierPlan {
  readonly wrap: readonly DenoiserWrapper[];
  /** The classifier, whose classes can be asked for of any model. */
  readonly classifier?: Model;
  /** What files say of it. */
  readonly facts: Readonly<Record<string, string | number>>;
}

/**
 * Reads the flags.
 *
 * @throws {InputError} If they contradict each other, or the classifier does not fit the model.
 */
export async function planClassifier(
  flags: Flags<typeof classifierFlags>,
  model: Model,
  shape: Shape,
): Promise<ClassifierPlan> {
  const { classifier: place, "classifier-scale": scale = 1 } = flags;
  if (place === undefined) {
    if (flags["classifier-scale"] === undefined) return { wrap: [], facts: {} };
    throw new InputError("--classifier-scale is for --classifier MODEL");
  }
  const classifier = await loadModel(place), wrapper = classifierGuided(classifier, { scale });
  // What does not go together is refused before a device is opened.
  wrapper(denoiserOf(model, shape.slice(0, -1)));
  return { wrap: [wrapper], classifier, facts: { classifier: place, classifier_scale: scale } };
}

/** How many classes can be asked for: those of the model, or else of the classifier. */
export function classCount(
  { network }: Model,
  shape: Shape,
  { classifier }: ClassifierPlan,
): number | null {
  const own = network.conditions(shape).labels?.below;
  return own ?? (classifier?.network.kind === "classifier" ? classifier.network.classes : null);
}
