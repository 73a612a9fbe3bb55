/**
 * The flag of watermarks.
 *
 * @module
 */

import type { Flag, Flags } from "../terminal/flags.ts";
import type { Progress } from "../terminal/progress.ts";

/** The flag. */
export const watermarkFlags = {
  watermark: {
    kind: "text",
    value: "TEXT",
    help:
      "put a text of up to 20 bytes into the pixels of PNG files, unseen, which info reads back, also after JPEG",
  },
} as const satisfies Record<string, Flag>;

/** What is put into pixels, if anything is. */
export const watermarkOf = (
  { watermark: text }: Flags<typeof watermarkFlags>,
  progress: Pick<Progress, "say">,
) =>
  text === undefined ? undefined : {
    text,
    onUnmarked: (what: string) =>
      progress.say(`${what} has no watermark: it is too flat to carry one that JPEG would leave`),
  };
