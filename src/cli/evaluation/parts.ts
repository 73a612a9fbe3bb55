/**
 * Statistics in files: of parts that several processes looked at, or as others publish them.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import {
  mergeStatistics,
  readStatistics,
  type Statistics,
} from "../../evaluate/statistics_file.ts";
import { readZip } from "../../formats/zip.ts";
import type { Fields } from "../../model/network.ts";
import { describeDifference } from "../../train/run_config.ts";
import { FileBytes, kindOf, readFile } from "../terminal/files.ts";
import { hashBytes } from "./hashes.ts";
import type { Features } from "./features.ts";
import { type Metric, whoNeeds } from "./measures.ts";

/** Statistics, and where they are. */
export interface StatisticsFile {
  readonly path: string;
  readonly hash: string;
  readonly statistics: Statistics;
}

/** Whether a path is a file of statistics rather than of pictures. */
export async function isStatistics(path: string): Promise<boolean> {
  if (!/\.npz$/i.test(path) || await kindOf(path) !== "file") return false;
  using file = new FileBytes(path);
  const names = (await readZip(file, path)).map(({ name }) => name);
  // Reference batches of guided-diffusion hold both.
  return names.includes("mu.npy") && !names.includes("arr_0.npy");
}

/** @throws {InputError} If it is none. */
export async function readStatisticsFile(path: string): Promise<StatisticsFile> {
  const bytes = await readFile(path);
  return { path, hash: hashBytes(bytes), statistics: await readStatistics(bytes, path) };
}

/** What a file tells of its origin, without which of the images it is of, and where those were. */
function originOf({ statistics: { about = {} } }: StatisticsFile): Fields {
  const { first: _f, count: _c, samples: _s, ...origin } = about;
  return origin;
}

/**
 * Puts parts together, in the order of the numbers of their images.
 *
 * @throws {InputError} If they are of different origins, or have images in common.
 */
export function mergeParts(files: readonly StatisticsFile[]): Statistics {
  const firstOf = ({ statistics: { about } }: StatisticsFile) => Number(about?.first ?? NaN);
  const isNumbered = files.every((file) =>
    Number.isSafeInteger(firstOf(file)) &&
    file.statistics.about?.samples === files[0].statistics.about?.samples
  );
  const sorted = isNumbered ? files.toSorted((a, b) => firstOf(a) - firstOf(b)) : files;
  for (const [i, file] of sorted.entries()) {
    const before = sorted[i - 1];
    if (!before) continue;
    const refuse = (why: string) =>
      new InputError(`Cannot put ${before.path} and ${file.path} together: ${why}`);
    const [a, b] = [before, file].map(originOf);
    const difference = describeDifference(a, before.path, b, file.path) ||
      describeDifference(b, file.path, a, before.path);
    if (difference) throw refuse(difference);
    const end = firstOf(before) + (before.statistics.count ?? 0);
    if (isNumbered && end > firstOf(file)) {
      throw refuse(`both have the image ${firstOf(file)}; --first and --count cut parts`);
    }
    if (before.hash === file.hash) throw refuse("they are the same");
  }
  const merged = mergeStatistics(sorted.map(({ statistics }) => statistics));
  if (sorted.length === 1) return merged;
  return {
    ...merged,
    about: { ...merged.about, count: merged.count },
  };
}

/** @throws {InputError} If statistics are of other features. */
export function checkFeatures(
  { path, statistics: { about, gaussian } }: StatisticsFile,
  features: Features | undefined,
  width?: number,
): void {
  const refuse = (why: string) => new InputError(`Cannot use the statistics in ${path}: ${why}`);
  if (features && about?.features_hash !== undefined && about.features_hash !== features.hash) {
    throw refuse(`they are of the features ${about.features}, not of ${features.name}`);
  }
  if (width !== undefined && gaussian.mean.length !== width) {
    throw refuse(
      `their features have a width of ${gaussian.mean.length}, and those to compare them with ` +
        `${width}: give the --features that they are of`,
    );
  }
}

/**
 * Checks that a file has what measures need of each image.
 *
 * @throws {InputError} If it has not.
 */
export function checkHolds(
  { path, statistics }: StatisticsFile,
  metrics: readonly Metric[],
  parts: readonly ("features" | "logits")[],
): void {
  for (const part of parts) {
    const metric = whoNeeds(metrics, part) ??
      (part === "features" && metrics.includes("nn") ? "nn" : undefined);
    if (!metric || statistics[part]) continue;
    throw new InputError(
      `${metric} needs the ${part} of each image, and ${path} has none: eval --metric ${metric} ` +
        "--out writes a file that has them",
    );
  }
}
