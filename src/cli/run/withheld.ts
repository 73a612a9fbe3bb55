/**
 * What is told of images that the safety checker of a model withholds.
 *
 * @module
 */

import type { SafetyVerdict } from "../../sample/safety_check.ts";
import type { Flag } from "../terminal/flags.ts";

/** The exit code where images were withheld. */
export const WITHHELD = 3;

/** The flag of commands that paint with pipelines. */
export const safetyFlags = {
  "no-safety-checker": {
    kind: "switch",
    help: "of models that have a safety checker, neither load it nor let it withhold images",
  },
} as const satisfies Record<string, Flag>;

/** The numbers of images that are withheld, and why, in words. */
export const withheldOf = (verdicts: readonly SafetyVerdict[] = []): Map<number, string> =>
  new Map(
    verdicts.flatMap(({ isWithheld, concepts }, i): [number, string][] => {
      const seen = `it sees concept${concepts.length > 1 ? "s" : ""} ${concepts.join(", ")}`;
      return isWithheld ? [[i, `withheld by the model's safety checker: ${seen}`]] : [];
    }),
  );
