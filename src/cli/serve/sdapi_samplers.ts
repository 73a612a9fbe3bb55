/**
 * What samplers are called in AUTOMATIC1111's web UI.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { MethodName } from "../../sample/solvers/mod.ts";
import { methodNames } from "../media/parameters.ts";
import { type JobRequest, samplers } from "./schemas.ts";

/** Names there, and the samplers here that do the same. */
export const samplerNames: Readonly<Record<string, MethodName>> = Object.fromEntries(
  samplers.flatMap((name) => name in methodNames ? [[methodNames[name]!, name]] : []),
);

/** Spacings of noise levels there, in lower case, and here. */
const spacings: Readonly<Record<string, JobRequest["sigmas"]>> = {
  ...{ automatic: undefined, karras: "karras", exponential: "exponential" },
  polyexponential: "polyexponential",
};

/**
 * A sampler, with how noise levels are spaced, by a name such as `DPM++ 2M Karras`, or one of ours.
 *
 * @throws {InputError} If there is none.
 */
export function samplerByName(
  name: string | undefined,
  scheduler: string | undefined,
): Pick<JobRequest, "sampler" | "sigmas"> {
  const asked = scheduler?.toLowerCase() ?? "automatic";
  if (!Object.hasOwn(spacings, asked)) {
    throw new InputError(
      `There is no scheduler ${scheduler}: there are ${Object.keys(spacings).join(", ")}`,
    );
  }
  const found: { sampler?: MethodName; sigmas?: NonNullable<JobRequest["sigmas"]> } = {};
  const sigmas = spacings[asked];
  if (sigmas) found.sigmas = sigmas;
  if (!name || name.toLowerCase() === "automatic") return found;
  const [, stem, suffix] = /^(.*?)(?: (Karras|Exponential))?$/i.exec(name)!;
  const same = (other: string) => other.toLowerCase() === stem.toLowerCase();
  const key = Object.keys(samplerNames).find(same);
  const sampler = key === undefined ? samplers.find(same) : samplerNames[key];
  if (!sampler) {
    throw new InputError(
      `There is no sampler ${name}: there are ${Object.keys(samplerNames).join(", ")}`,
    );
  }
  const spacing = suffix && spacings[suffix.toLowerCase()];
  return { ...found, sampler, ...(spacing ? { sigmas: spacing } : {}) };
}
