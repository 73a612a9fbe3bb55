/**
 * An evaluation from end to end: pictures, their features, the real images, and the measures.
 *
 * @module
 */

import type { TextFeatureExtractor } from "../../evaluate/dual_encoder_features.ts";
import type { FeatureExtractor } from "../../evaluate/feature_extractor.ts";
import type { Rows, Work } from "../../evaluate/rows.ts";
import type { Statistics } from "../../evaluate/statistics_file.ts";
import type { Device } from "../../gpu/device.ts";
import type { Samples } from "../../sample/options.ts";
import { formatLeft, type Progress } from "../terminal/progress.ts";
import { collect, type Collected, type Kept } from "./collect.ts";
import type { Features } from "./features.ts";
import type { ImageSource } from "./image_source.ts";
import {
  type Captions,
  comparesWithData,
  measure,
  type Measures,
  type Metric,
  whoNeeds,
} from "./measures.ts";
import { closest, type NeighborMeasures, neighborsAmong, NeighborSearch } from "./neighbors.ts";
import type { Space } from "./neighbors.ts";
import { checkFeatures, mergeParts } from "./parts.ts";
import type { Reference } from "./reference.ts";
import type { Subject } from "./subject.ts";

/** What is to be evaluated. */
export interface Evaluation {
  /** What is measured. */
  readonly metrics: readonly Metric[];
  /** For which measures, now or later, features and logits are kept. */
  readonly keepsFor: readonly Metric[];
  readonly subject: Subject;
  readonly reference: Reference | undefined;
  readonly features: Features | undefined;
  /** What is said of samples and real images, where a measure looks at that. */
  readonly captions: Captions | undefined;
  /** What neighbours are near in. */
  readonly space: Space;
  /** Whether pictures of neighbours are wanted. */
  readonly wantsPictures: boolean;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** What came out. */
export interface Evaluated {
  readonly statistics: Statistics;
  readonly measures: Measures;
  readonly neighbors?: NeighborMeasures;
  /** The first pictures. */
  readonly shown?: Samples;
  /** Samples and the training images next to them: the first ones, and the nearest. */
  readonly pairs?: { readonly first: Pairs; readonly nearest: Pairs };
}

/** Samples, and real images next to them. */
export interface Pairs {
  readonly places: readonly number[];
  readonly samples: Samples;
  readonly real: Samples;
}

/** Pairs of a contact sheet. */
const PAIRS = 16;
/** What takes longest. */
const SAMPLING = "sampling";

/** What is known of the samples. */
type Known = Pick<Collected, "statistics"> & Partial<Omit<Collected, "statistics">>;

/** Evaluates. @throws The signal's reason, if it is aborted. */
export async function evaluate(task: Evaluation, device: Device | undefined): Promise<Evaluated> {
  const { metrics, keepsFor, subject, reference, features, space } = task;
  using stack = new DisposableStack();
  const extractor = features && device ? stack.use(await features.open(device)) : undefined;
  for (const file of [...subject.files, ...(reference?.file ? [reference.file] : [])]) {
    checkFeatures(file, features, extractor?.width);
  }
  const source = device ? await subject.open?.(device, stack) : undefined;
  if (source && subject.model) {
    task.progress.say(`${SAMPLING} ${source.count} images of ${subject.name} on ${device!.name}`);
  }
  const wantsNeighbors = keepsFor.includes("nn");
  const kept: Kept = {
    features: !!whoNeeds(keepsFor, "features") || wantsNeighbors && space === "features",
    logits: !!whoNeeds(keepsFor, "logits"),
    pixels: metrics.includes("nn") && space === "pixels",
  };
  const samples: Known = source && extractor
    ? await collect(source, extractor, kept, workOf(task, subject.model ? SAMPLING : "samples"))
    : { statistics: mergeParts(subject.files) };
  const { real, neighbors, learnt } = comparesWithData(metrics)
    ? await compareWith(task, samples, extractor, kept)
    : {};
  const of = (name: string): Work => workOf(task, name);
  const captions = task.captions && await withTexts(task.captions, extractor, task.signal);
  const measures = await measure(metrics, samples.statistics, real, captions, of);
  const pairs = neighbors && source && learnt && task.wantsPictures
    ? await pictures(source, learnt, neighbors)
    : undefined;
  return {
    ...{ statistics: samples.statistics, measures },
    ...(neighbors ? { neighbors } : {}),
    ...(samples.shown ? { shown: samples.shown } : {}),
    ...(pairs ? { pairs } : {}),
  };
}

/** Captions with their features, where these are of texts too. */
async function withTexts(
  captions: Captions,
  extractor: FeatureExtractor | TextFeatureExtractor | undefined,
  signal: AbortSignal,
): Promise<Captions> {
  if (!extractor || !("extractTexts" in extractor)) return captions;
  const all = [...new Set(captions.real)], { width } = extractor;
  const rows = { count: all.length, width, data: await extractor.extractTexts(all, signal) };
  return { ...captions, texts: { rows, captions: all } };
}

/** Looks at the real images, and for neighbours among those that a model learnt from. */
async function compareWith(
  task: Evaluation,
  { statistics, pixels }: Known,
  extractor: FeatureExtractor | undefined,
  kept: Kept,
): Promise<{ real?: Statistics; neighbors?: NeighborMeasures; learnt?: ImageSource }> {
  const { metrics, reference, space, signal } = task, { features } = statistics;
  const rows = metrics.includes("nn") ? space === "pixels" ? pixels : features : undefined;
  const { file, source, openTraining, openHeldOut } = reference!;
  if (file) {
    const real = file.statistics;
    checkFeatures(file, task.features, statistics.gaussian.mean.length);
    if (!rows) return { real };
    const work = workOf(task, "neighbours");
    return { real, neighbors: await neighborsAmong(rows, real.features!, work) };
  }
  const held = rows ? await openHeldOut?.(rows.count) : undefined;
  const heldOut = held && await collect(held, extractor!, kept, workOf(task, "held-out images"));
  const search = rows &&
    new NeighborSearch(space, rows, heldOut?.pixels ?? heldOut?.statistics.features);
  // Neighbours are looked for batch by batch.
  const look = async (features: Rows, pixels: Rows) =>
    await search?.add(features, pixels, { signal });
  const training = search && await openTraining?.();
  const none: Kept = { features: false, logits: false, pixels: false };
  if (training) await collect(training, extractor!, none, workOf(task, "training images"), look);
  const real = await collect(
    source!,
    extractor!,
    { ...none, features: !!whoNeeds(metrics, "features") },
    workOf(task, "real images"),
    training ? undefined : look,
  );
  return {
    real: real.statistics,
    ...(search ? { neighbors: search.found(), learnt: training ?? source! } : {}),
  };
}

/** Samples and their neighbours as pictures. */
async function pictures(
  source: ImageSource,
  real: ImageSource,
  { samples }: NeighborMeasures,
): Promise<Evaluated["pairs"]> {
  const pair = async (places: readonly number[]): Promise<Pairs> => ({
    places,
    samples: await source.pick(places),
    real: await real.pick(places.map((place) => samples.indices[place])),
  });
  const { length } = samples.indices;
  const first = await pair(Array.from({ length: Math.min(PAIRS, length) }, (_, i) => i));
  return { first, nearest: await pair(closest(samples, PAIRS)) };
}

/** Tells how far a part of the work is; a log gets a line for each tenth of what takes longest. */
function workOf({ progress, signal }: Evaluation, name: string): Work {
  const began = performance.now(), isLogged = name === SAMPLING && !Deno.stderr.isTerminal();
  let tenths = 0;
  return {
    signal,
    onProgress(done, total) {
      const left = formatLeft(done, total, (performance.now() - began) / 1000);
      const text = `${name}: ${Math.floor(100 * done / total)} %${left}`;
      if (isLogged && 10 * done / total >= tenths + 1) {
        tenths = Math.floor(10 * done / total);
        progress.say(text);
      } else progress.update(text);
    },
  };
}
