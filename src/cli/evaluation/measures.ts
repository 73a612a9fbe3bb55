/**
 * The measures of `eval`, what each needs, and what comes out.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { ImageOrder } from "../../data/dataset.ts";
import { frechetDistance } from "../../evaluate/frechet_distance.ts";
import { type InceptionScore, inceptionScore } from "../../evaluate/inception_score.ts";
import { type KernelDistance, kernelDistance, pickRows } from "../../evaluate/kernel_distance.ts";
import { type PrecisionRecall, precisionRecall } from "../../evaluate/precision_recall.ts";
import { type Recognition, recognize } from "../../evaluate/recognition.ts";
import {
  type Captioned,
  type Retrieval,
  retrieve,
  retrieveTexts,
  type TextRetrieval,
} from "../../evaluate/retrieval.ts";
import type { Rows, Work } from "../../evaluate/rows.ts";
import type { Statistics } from "../../evaluate/statistics_file.ts";
import { suggest } from "../terminal/flags.ts";

/** All measures, in the order in which they are told. */
export const METRICS = ["fd", "kid", "prdc", "is", "class", "nn", "retrieval", "bpd"] as const;
/** The name of a measure. */
export type Metric = typeof METRICS[number];

/** Which ones compare with real images, with features of each image, or look at classes. */
const COMPARES: readonly Metric[] = ["fd", "kid", "prdc", "nn", "retrieval"];
const NEEDS_FEATURES: readonly Metric[] = ["kid", "prdc", "retrieval"];
const NEEDS_LOGITS: readonly Metric[] = ["is", "class"];

/** Whether real images are needed. */
export const comparesWithData = (metrics: readonly Metric[]): boolean =>
  metrics.some((name) => COMPARES.includes(name));
/** Which needs features or logits of each image, if one does. */
export const whoNeeds = (
  metrics: readonly Metric[],
  part: "features" | "logits",
): Metric | undefined =>
  metrics.find((name) => (part === "features" ? NEEDS_FEATURES : NEEDS_LOGITS).includes(name));

/** @throws {InputError} If a name is none. */
export function readMetrics(text: string): Metric[] {
  const names = text.split(",").map((name) => name.trim());
  for (const name of names) {
    if (METRICS.some((known) => known === name)) continue;
    throw new InputError(
      `--metric must be some of ${METRICS.join(", ")}, with commas between, not ${name}` +
        (name === "fid"
          ? "; fd is the Fréchet distance, which only in the features of Inception v3 is the FID"
          : suggest(name, METRICS)),
    );
  }
  return METRICS.filter((name) => names.includes(name));
}

/** How many parts a score has. */
const SPLITS = 10;
/** How many samples and real images measures need. */
const LEAST: Readonly<Partial<Record<Metric, readonly [samples: number, real: number]>>> = {
  ...{ fd: [2, 2], kid: [4, 4], prdc: [6, 6], nn: [1, 2], is: [SPLITS, 0] },
};

/**
 * Checks that there are enough images, as far as that is known.
 *
 * @throws {InputError} If there are not.
 */
export function checkCounts(
  metrics: readonly Metric[],
  samples: number | undefined,
  real: { readonly name: string; readonly count: number | undefined } | undefined,
): void {
  for (const metric of metrics) {
    const [few, fewReal] = LEAST[metric] ?? [0, 0];
    if (samples !== undefined && samples < few) {
      throw new InputError(`${metric} needs ${few} images at the least, not ${samples}`);
    }
    if (real?.count !== undefined && real.count < fewReal) {
      throw new InputError(
        `${metric} needs ${fewReal} real images at the least, not the ${real.count} of ${real.name}`,
      );
    }
  }
}

/** What was measured by comparing features and classes. */
export interface Measures {
  readonly fd?: number;
  readonly kid?: KernelDistance;
  readonly prdc?: PrecisionRecall & {
    /** How many images of either kind. */
    readonly samples: number;
    readonly real: number;
  };
  readonly is?: InceptionScore;
  readonly class?: Recognition;
  /** By real pictures; by texts, where features are of texts too, of samples and of real images. */
  readonly retrieval?: Retrieval | {
    readonly samples: TextRetrieval;
    readonly real: TextRetrieval;
  };
}

/** What is said of pictures, for measures that look at that. */
export interface Captions {
  /** What each sample was asked for by. */
  readonly samples: readonly string[];
  /** The caption of each real image. */
  readonly real: readonly string[];
  /** Features of these captions, each once, where features are of texts too. */
  readonly texts?: Captioned;
}

/**
 * Takes the measures that were asked for.
 *
 * @param samples With features and logits where a measure needs them.
 * @param real Of real images, for those that compare.
 * @param captions Of both.
 * @throws {InputError} If there are too few images for one of them.
 * @throws The signal's reason, if it is aborted.
 */
export async function measure(
  metrics: readonly Metric[],
  samples: Statistics,
  real: Statistics | undefined,
  captions: Captions | undefined,
  workOf: (name: string) => Work,
): Promise<Measures> {
  const has = (name: Metric) => metrics.includes(name), { gaussian, logits, labels } = samples;
  const found: { -readonly [K in keyof Measures]: Measures[K] } = {};
  const rows = [samples, real].map((set) => set?.features!);
  if (has("fd")) {
    const work = workOf("Fréchet distance");
    found.fd = await frechetDistance(gaussian, real!.gaussian, work);
  }
  if (has("kid")) {
    found.kid = await kernelDistance(rows[0], rows[1], workOf("kernel distance"));
  }
  if (has("prdc")) {
    const some = evenly(rows[1], rows[0].count), work = workOf("precision and recall");
    found.prdc = {
      ...await precisionRecall(rows[0], some, work),
      ...{ samples: rows[0].count, real: some.count },
    };
  }
  if (has("is")) {
    // Images may be in the order of their classes.
    const order = new ImageOrder(logits!.count, 0);
    const shuffled = pickRows(
      logits!,
      Array.from({ length: logits!.count }, (_, i) => order.at(i)),
    );
    found.is = inceptionScore(shuffled, SPLITS);
  }
  if (has("class")) found.class = recognize(logits!, labels);
  if (has("retrieval")) {
    const { texts } = captions!, work = workOf("retrieval");
    const [asked, shown] = [captions!.samples, captions!.real].map((captions, i) => ({
      ...{ rows: rows[i], captions },
    }));
    found.retrieval = texts
      ? {
        samples: await retrieveTexts(asked, texts, work),
        real: await retrieveTexts(shown, texts, work),
      }
      : await retrieve(asked, shown, work);
  }
  return found;
}

/** So many rows at the most, evenly spread. */
function evenly(rows: Rows, most: number): Rows {
  if (rows.count <= most) return rows;
  const picked = Array.from({ length: most }, (_, i) => Math.floor(i * rows.count / most));
  return pickRows(rows, picked);
}
