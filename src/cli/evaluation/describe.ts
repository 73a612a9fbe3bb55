/**
 * What an evaluation tells: JSON for machines, and a line for people.
 *
 * @module
 */

import { toSnakeCase } from "../../config.ts";
import type { Neighbors } from "../../evaluate/near_copies.ts";
import type { Retrieval } from "../../evaluate/retrieval.ts";
import type { Bits } from "./bits.ts";
import type { Measures } from "./measures.ts";
import { median, type NeighborMeasures } from "./neighbors.ts";

/** All that was measured. */
export interface Results {
  readonly measures: Measures;
  readonly neighbors?: NeighborMeasures | undefined;
  readonly bits?: Bits | undefined;
}

/** Six digits are more than any measure is worth. */
const shorten = (values: Float64Array) => Array.from(values, (x) => Number(x.toPrecision(6)));

/** A measure, and what it consists of, as it is in JSON. */
const format = (value: unknown): unknown =>
  value?.constructor !== Object ? value : Object.fromEntries(
    Object.entries(toSnakeCase(value)).map(([name, part]) => [name, format(part)]),
  );

/** Measures by name, as they are in JSON. */
export function resultsOf({ measures, neighbors, bits }: Results): Record<string, unknown> {
  const named = Object.entries(measures).map(([name, value]) => [name, format(value)] as const);
  const of = ({ nearCopies, distances }: Neighbors) => ({
    ...{ count: distances.length, near_copies: nearCopies, median_distance: median(distances) },
  });
  return {
    ...Object.fromEntries(named),
    ...(neighbors
      ? {
        nn: {
          ...{ space: neighbors.space, ...of(neighbors.samples) },
          ...(neighbors.heldOut ? { held_out: of(neighbors.heldOut) } : {}),
          distances: shorten(neighbors.samples.distances),
          indices: [...neighbors.samples.indices],
        },
      }
      : {}),
    ...(bits ? { bpd: bits } : {}),
  };
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
/** Four significant digits. */
const number = (x: number) => String(Number(x.toPrecision(4)));

/** Recall among one and ten captions, beside what it is by chance and of real images. */
const tellRecall = (way: string, found: Retrieval, real?: Retrieval): [string, string][] =>
  ([[1, "recallAt1"], [10, "recallAt10"]] as const).map(([k, name]) => {
    const beside = [
      `${percent(Math.min(1, k / found.captions))} by chance`,
      ...(real ? [`${percent(real[name])} of real images`] : []),
    ];
    return [`${way}R@${k}`, `${percent(found[name])} (${beside.join(", ")})`];
  });

/** What the measures are called, in whole, and their values. */
export function tell(results: Results, isInception: boolean): [name: string, value: string][] {
  const { measures: { fd, kid, prdc, is, class: seen, retrieval }, neighbors, bits } = results;
  const lines: [string, string][] = [];
  if (fd !== undefined) lines.push([isInception ? "FID" : "Fréchet distance", number(fd)]);
  if (kid) {
    const value = `${number(kid.mean)} ± ${number(kid.standardError)}`;
    lines.push([isInception ? "KID" : "kernel distance", value]);
  }
  if (prdc) {
    const { precision, recall, density, coverage } = prdc;
    lines.push(["precision", percent(precision)], ["recall", percent(recall)]);
    lines.push(["density", number(density)], ["coverage", percent(coverage)]);
  }
  if (is) {
    const name = isInception ? "Inception score" : "score of classes";
    lines.push([name, `${number(is.mean)} ± ${number(is.std)}`]);
  }
  if (seen) lines.push(["recognised", percent(seen.recognised)]);
  if (seen?.asked !== undefined) lines.push(["asked class", percent(seen.asked)]);
  if (neighbors) {
    const { samples, heldOut } = neighbors;
    const held = heldOut ? ` (${percent(heldOut.nearCopies)} of images held out)` : "";
    lines.push(["near copies", `${percent(samples.nearCopies)}${held}`]);
  }
  if (retrieval && "captions" in retrieval) lines.push(...tellRecall("", retrieval));
  else if (retrieval) {
    const { samples, real } = retrieval;
    lines.push(...tellRecall("image to text ", samples.imageToText, real.imageToText));
    lines.push(...tellRecall("text to image ", samples.textToImage, real.textToImage));
  }
  for (const [name, value] of [["bound", bits?.vlb], ["density by ODE", bits?.ode]] as const) {
    if (value) lines.push([name, `${value.total.toFixed(4)} bits/dim`]);
  }
  return lines;
}

/** One line. */
export function describe(
  { name, prompts, count, against, features }: {
    readonly name: string;
    /** Where the texts of images are from. */
    readonly prompts?: string | undefined;
    readonly count: number | undefined;
    readonly against: string | undefined;
    readonly features: string | undefined;
  },
  results: Results,
  isInception: boolean,
): string {
  const images = count === undefined ? "" : `, ${count} images`;
  const real = against === undefined ? "" : ` against ${against}`;
  const by = features === undefined ? "" : `, features ${features}`;
  const of = prompts === undefined ? "" : ` of ${prompts}`;
  const values = tell(results, isInception).map((pair) => pair.join(" ")).join(", ");
  return `${name}${images}${of}${real}${by}: ${values}`;
}
