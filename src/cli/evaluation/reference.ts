/**
 * The real images that samples are compared with.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Dataset } from "../../data/dataset.ts";
import type { Shape } from "../../shape.ts";
import { heldBack, openTrainingData } from "../data/data.ts";
import type { Progress } from "../terminal/progress.ts";
import { imagesOf, type ImageSource } from "./image_source.ts";
import { readStatisticsFile, type StatisticsFile } from "./parts.ts";
import { imageOptions, openImages } from "./subject.ts";

/** Parts of a data set. */
export const SPLITS = ["train", "test"] as const;

/** What is compared with. */
export interface Reference {
  /** What it is, in words. */
  readonly name: string;
  /** What is told of it. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Published statistics. */
  readonly file?: StatisticsFile;
  /** Real images. */
  readonly source?: ImageSource;
  /** The data set that those are of. */
  readonly data?: Dataset;
  /** Where those are of a test split: the images that a model learnt from. */
  openTraining?(): Promise<ImageSource>;
  /** Images of the same kind that a model did not learn from, if there are any. */
  openHeldOut?(most: number): Promise<ImageSource | undefined>;
}

/** Statistics from a file. */
export async function referenceFile(path: string): Promise<Reference> {
  const file = await readStatisticsFile(path), { count } = file.statistics;
  return {
    ...{ name: path, file },
    facts: {
      ...{ reference: path, reference_hash: file.hash },
      ...(count === undefined ? {} : { reference_count: count }),
    },
  };
}

/**
 * The place of a split of a data set.
 *
 * @throws {InputError} If there is none.
 */
export async function splitOf(place: string, split: string | undefined): Promise<string> {
  if (split !== "test") return place;
  const held = await heldBack(place);
  if (held !== undefined) return held;
  throw new InputError(
    `There is no test split of ${place}: give its images as --data, and leave --split test out`,
  );
}

/**
 * Images of a data set, of which the training split is the usual reference, as for torch-fidelity.
 *
 * @param shape The shape that they are brought to.
 * @param captions Whether captions are read too.
 * @throws {InputError} If there are none, or one cannot be read.
 */
export async function referenceData(
  place: string,
  split: string,
  shape: Shape | undefined,
  captions: boolean,
  progress: Progress,
): Promise<Reference> {
  const from = await splitOf(place, split), options = { ...imageOptions(shape), captions };
  const { data, fingerprint } = await openTrainingData(from, options, progress, { maxBad: "0" });
  return {
    name: from,
    facts: { data: from, split, data_hash: fingerprint.pictures, data_count: data.count },
    ...{ source: imagesOf(data), data },
    ...(from === place ? {} : {
      openTraining: async () => imagesOf(await openImages(place, data.shape, progress)),
    }),
    async openHeldOut(most) {
      if (from !== place) return evenlyOf(data, most);
      const held = await heldBack(place);
      if (held === undefined) return undefined;
      return evenlyOf(await openImages(held, data.shape, progress), most);
    },
  };
}

/** So many images of a data set at the most, evenly spread. */
function evenlyOf(data: Dataset, most: number): ImageSource {
  const count = Math.min(most, data.count);
  return imagesOf(data, count, (place) => Math.floor(place * data.count / count));
}
