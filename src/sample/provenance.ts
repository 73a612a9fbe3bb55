/**
 * What made a picture, as its file says it.
 *
 * @module
 */

import { plainText } from "../formats/png.ts";
import { XMP, xmpOf } from "../formats/xmp.ts";

/** Metadata of an image: model, seed, steps. */
export type Provenance = Readonly<Record<string, string | number>>;

/** What of the provenance means that another picture went in. */
const OTHERS = ["init", "picture", "task", "images"];

/**
 * The texts of a PNG that say what made it.
 *
 * @param software What wrote it, with its version.
 */
export function textsOf(provenance: Provenance, software: string): Record<string, string> {
  const description = Object.entries(provenance).map(([k, v]) => `${k} ${v}`).join(", ");
  const comment = JSON.stringify({ software, ...provenance });
  return {
    Software: software,
    Description: plainText(description),
    Comment: plainText(comment),
    [XMP]: xmpOf(OTHERS.some((name) => name in provenance)),
  };
}

/** The provenance in the texts of a PNG; `undefined` where they are of other programs. */
export function provenanceIn(
  { Comment: comment = "" }: Readonly<Record<string, string>>,
): Provenance | undefined {
  try {
    const { software, ...about } = Object(JSON.parse(comment));
    return typeof software === "string" && about.seed !== undefined ? about : undefined;
  } catch {
    return undefined;
  }
}

/** The classes of images, in a text: of many that take turns, those of the first turn. */
export function nameClasses(classes: readonly string[]): string {
  const again = classes.indexOf(classes[0], 1), period = again < 0 ? classes.length : again;
  const takeTurns = classes.every((name, i) => name === classes[i % period]);
  return (takeTurns ? classes.slice(0, period) : classes).join(",");
}
