/**
 * What `eval` looks at: the pictures of a model, pictures from elsewhere, statistics in files, or
 * real images themselves.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Dataset } from "../../data/dataset.ts";
import type { Device } from "../../gpu/device.ts";
import type { Model } from "../../model/model.ts";
import { formatShape, sameShape, type Shape } from "../../shape.ts";
import { knownData } from "../data/builtin_datasets.ts";
import { openDataset } from "../data/data.ts";
import { parseImages } from "../../data/image_options.ts";
import { shapeOf } from "../commands/sample.ts";
import { kindOf } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { openAnyModel } from "../run/open_model.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import type { Features } from "./features.ts";
import type { AskedTexts } from "./asked_texts.ts";
import { hashModel } from "./hashes.ts";
import {
  imagesOf,
  type ImageSource,
  isReducible,
  joinSources,
  reduceSource,
} from "./image_source.ts";
import { isStatistics, readStatisticsFile, type StatisticsFile } from "./parts.ts";
import { planSampling, type SamplingFlags } from "./sampled_images.ts";

/** Images of a model where nobody says how many. */
export const USUAL_COUNT = 2048;

/** What is looked at. */
export interface Subject {
  /** What it is, in words. */
  readonly name: string;
  /** What is told of it. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Statistics of parts of it. */
  readonly files: readonly StatisticsFile[];
  /** How many images, if that is known. */
  readonly count?: number | undefined;
  /** Of its pictures, where there are any. */
  readonly shape?: Shape;
  /** The text that each picture was asked for by, where there was one. */
  readonly texts?: readonly string[];
  /** What its classes are called. */
  readonly classes?: readonly string[];
  /** The model that makes it. */
  readonly model?: Model;
  /** Opens its pictures; the stack owns what that takes. */
  open?(device: Device, stack: DisposableStack): Promise<ImageSource>;
}

/** Which images of all. */
export interface Range {
  readonly first?: number | undefined;
  readonly count?: number | undefined;
}

/** A model that makes pictures of a shape. */
export interface Painter {
  /** What it is called. */
  readonly name: string;
  readonly model: Model;
  readonly shape: Shape;
}

/** Opens a model. @throws {InputError} If there is none, or it makes no pictures by itself. */
export async function openPainter(name: string): Promise<Painter> {
  const model = await openAnyModel(name), items = shapeOf(model, name);
  const shape = paintedShape(model, items);
  return { name, model, shape };
}

/**
 * The pictures of a model.
 *
 * @param asked What it is asked for, if it reads.
 * @throws {InputError} If the flags do not fit it.
 */
export async function modelSubject(
  { name: place, model, shape }: Painter,
  flags: SamplingFlags,
  { first = 0, count = USUAL_COUNT }: Range,
  asked: AskedTexts | undefined,
  progress: Progress,
): Promise<Subject> {
  const items = shapeOf(model, place);
  const plan = await planSampling(flags, { model, place, shape: items, first, count, asked });
  if (plan.notice) progress.say(plan.notice);
  return {
    ...{ name: place, files: [], count, shape, model, open: plan.open },
    facts: { model: place, model_hash: hashModel(model), ...plan.facts, first, count },
    ...(plan.texts ? { texts: plan.texts } : {}),
    ...(plan.classes ? { classes: plan.classes } : {}),
  };
}

/** The places that a list names; a name with a comma is one place if there is such a thing. */
async function placesOf(text: string): Promise<string[]> {
  if (Object.hasOwn(knownData, text) || await kindOf(text) !== "nothing") return [text];
  return text.split(",").map((place) => place.trim());
}

/**
 * Pictures, or statistics of some, that were made elsewhere.
 *
 * @throws {InputError} If there are none, or they do not go together.
 */
export async function filesSubject(
  text: string,
  range: Range,
  progress: Progress,
): Promise<Subject> {
  const places = await placesOf(text), files: StatisticsFile[] = [], sets: Dataset[] = [];
  for (const place of places) {
    if (await isStatistics(place)) files.push(await readStatisticsFile(place));
    else sets.push(await openImages(place, undefined, progress));
  }
  if (files.length && sets.length) {
    throw new InputError(
      `Cannot put ${files[0].path}, which holds statistics, and ${sets[0].name}, which holds ` +
        "pictures, together",
    );
  }
  const name = places.join(", ");
  const given = range.first !== undefined ? "first" : range.count !== undefined ? "count" : "";
  if (given && places.length > 1 || given && files.length) {
    throw new InputError(`--${given} is for a single set of pictures, which ${name} is not`);
  }
  if (files.length) {
    const counts = files.map(({ statistics }) => statistics.count ?? NaN);
    const count = counts.reduce((sum, n) => sum + n, 0);
    return { name, facts: { samples: name }, files, ...(count >= 0 ? { count } : {}) };
  }
  const [{ shape }] = sets, other = sets.find((set) => !sameShape(set.shape, shape));
  if (other) {
    throw new InputError(
      `Cannot put the pictures of ${sets[0].name} and ${other.name} together: they are of ` +
        `${formatShape(shape)} and ${formatShape(other.shape)}`,
    );
  }
  const source = joinSources(sets.map((set) => rangeOf(set, range)));
  return {
    ...{ name, files, count: source.count, shape, open: () => Promise.resolve(source) },
    facts: { samples: name, first: range.first ?? 0, count: source.count },
  };
}

/**
 * Opens images to measure. None may be left out: the numbers would be those of others.
 *
 * @param shape The shape that they are brought to, as `train` does it; by default their own.
 * @throws {InputError} If there are none, or one of them cannot be read.
 */
export const openImages = async (place: string, shape: Shape | undefined, progress: Progress) =>
  await openDataset(place, imageOptions(shape), progress, { maxBad: "0" });

/** How images of a shape are prepared. */
export const imageOptions = (shape: Shape | undefined) =>
  parseImages(shape ? { size: shape.slice(0, 2), channels: shape[2] } : {});

/** Some of the images of a data set. @throws {InputError} If there are fewer. */
function rangeOf(data: Dataset, { first = 0, count = data.count - first }: Range): ImageSource {
  if (first + count > data.count || count <= 0) {
    const what = count <= 0 ? `--first ${first}` : `--first ${first} and --count ${count}`;
    throw new InputError(`${what} are beyond the ${data.count} images of ${data.name}`);
  }
  return imagesOf(data, count, (place) => first + place);
}

/** Real images themselves. */
export async function dataSubject(
  place: string,
  shape: Shape | undefined,
  range: Range,
  progress: Progress,
): Promise<Subject> {
  const source = rangeOf(await openImages(place, shape, progress), range), { count } = source;
  return {
    ...{ name: place, files: [], count, shape: source.shape },
    facts: { data: place, first: range.first ?? 0, count },
    open: () => Promise.resolve(source),
  };
}

/** @throws {InputError} If the features are for other pictures. */
export function checkShape(
  { shape: wanted, name }: Features,
  subject: Pick<Subject, "name" | "shape">,
): void {
  const { shape } = subject;
  if (!shape || !wanted || isReducible(shape, wanted)) return;
  throw new InputError(
    `The features ${name} are for pictures of ${
      formatShape(wanted)
    }, and those of ${subject.name} ` +
      `are of ${formatShape(shape)}: give --features a classifier of such pictures, which train ` +
      "--config features makes",
  );
}

/** What is looked at in the size that features are for, where its pictures are larger. */
export function reduceSubject(subject: Subject, { shape: wanted }: Features): Subject {
  const { shape, open, facts } = subject;
  if (!open || !shape || !wanted || sameShape(shape, wanted)) return subject;
  return {
    ...subject,
    facts: { ...facts, reduced_to: formatShape(wanted) },
    open: async (device, stack) => reduceSource(await open(device, stack), wanted),
  };
}

/** @throws {InputError} If features tell other classes apart than the model knows. */
export function checkClasses({ name, classes }: Features, subject: Subject): void {
  if (!subject.classes || !classes || subject.classes.join() === classes.join()) return;
  throw new InputError(
    `${subject.name} has the classes ${subject.classes.join(", ")}, and ${name} ` +
      `${classes.join(", ")}: give --features that tell the former apart`,
  );
}
