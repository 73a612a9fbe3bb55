/**
 * `ddpm eval` of pictures: which ones, compared with what, and where the results go.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Device } from "../../gpu/device.ts";
import { encodeStatistics } from "../../evaluate/statistics_file.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import { shippedFeatures } from "../../model/shipped.ts";
import type { Shape } from "../../shape.ts";
import { heldBack } from "../data/data.ts";
import { readTexts } from "../evaluation/asked_texts.ts";
import { type Bits, BITS_COUNT, BITS_STEPS, checkBits, measureBits } from "../evaluation/bits.ts";
import { describe, resultsOf } from "../evaluation/describe.ts";
import { evaluate, type Evaluation } from "../evaluation/evaluate.ts";
import { checkClassifies, type Features, readFeatures } from "../evaluation/features.ts";
import {
  type Captions,
  checkCounts,
  comparesWithData,
  type Metric,
} from "../evaluation/measures.ts";
import { renderEvaluation } from "../evaluation/report.ts";
import type { Space } from "../evaluation/neighbors.ts";
import { checkHolds } from "../evaluation/parts.ts";
import { type Reference, referenceData, referenceFile, splitOf } from "../evaluation/reference.ts";
import {
  checkClasses,
  checkShape,
  dataSubject,
  filesSubject,
  modelSubject,
  openImages,
  openPainter,
  type Painter,
  type Range,
  reduceSubject,
  type Subject,
} from "../evaluation/subject.ts";
import { openForCommand } from "../terminal/device.ts";
import { checkWritable, writeAll, writeWhole } from "../terminal/files.ts";
import { print, type Progress } from "../terminal/progress.ts";
import { packageName, software } from "../terminal/version.ts";
import { classFlags } from "./class_flags.ts";
import type { EvalFlags } from "./eval.ts";
import { guidanceFlags } from "./guidance_flags.ts";
import { promptFlags } from "./prompt_flags.ts";
import { samplerFlags } from "./sampler_flags.ts";

/** Evaluates pictures, and prints and writes what came out. */
export async function evaluatePictures(
  flags: EvalFlags,
  metrics: readonly Metric[],
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const { out, report } = flags;
  await checkFlags(flags, metrics);
  const plan = await makePlan(flags, metrics, progress, signal);
  const { subject, reference, features } = plan;
  const needsDevice = subject.open || reference?.source || plan.metrics.includes("bpd");
  using device = needsDevice ? await openForCommand(flags, progress) : undefined;
  const found = await evaluate(plan, device);
  const bits = plan.metrics.includes("bpd")
    ? await bitsOf(flags, plan, device!, progress, signal)
    : undefined;
  const { statistics } = found, results = { ...found, bits };
  const facts = {
    version: software,
    ...statistics.about,
    ...subject.facts,
    ...(features ? { features: features.name, features_hash: features.hash } : {}),
  };
  const told: Record<string, unknown> = {
    ...facts,
    ...(statistics.count === undefined ? {} : { count: statistics.count }),
    ...reference?.facts,
    ...resultsOf(results),
  };
  progress.clear();
  if (out !== undefined) {
    const parts = encodeStatistics({ ...statistics, about: facts });
    await writeWhole(out, async (file) => {
      for (const part of parts) await writeAll(file, part);
    });
  }
  if (report !== undefined) {
    const { distances: _d, indices: _i, ...nn } = Object(told.nn);
    const page = await renderEvaluation({
      ...{ title: `${subject.name}: ${packageName} eval`, found, bits },
      ...{ isInception: features?.isInception ?? false, classes: features?.classes },
      facts: { ...told, ...(told.nn ? { nn } : {}) },
    });
    await writeWhole(report, page);
  }
  if (flags.json) return print(JSON.stringify(told));
  const { count } = statistics, size = count === undefined ? "" : ` of ${count} images`;
  if (out !== undefined) print(`${out}: statistics${size} of ${subject.name}`);
  if (report !== undefined) print(`${report}: the report`);
  if (!plan.metrics.length) return;
  const names = {
    ...{ name: subject.name, prompts: (told.prompts ?? told.prompt) as string | undefined },
    ...{ against: reference?.name, features: features?.name },
  };
  print(describe({ ...names, count }, results, features?.isInception ?? false));
}

/** Whether statistics of real images are wanted, and nothing else. */
const isOfData = ({ model, samples, metric, out }: EvalFlags) =>
  out !== undefined && model === undefined && samples === undefined && metric === undefined;

/** Flags that are for pictures that a model is to make. */
const SAMPLING = [
  ...Object.keys({ ...samplerFlags, ...classFlags, ...promptFlags, ...guidanceFlags }),
  ...["seed", "batch"],
] as (keyof EvalFlags)[];

/** @throws {InputError} If flags contradict each other, or nothing can be written. */
async function checkFlags(flags: EvalFlags, metrics: readonly Metric[]): Promise<void> {
  const { model, samples, data, reference, out, report, count } = flags;
  const isMade = samples !== undefined || isOfData(flags);
  const idle = (name: keyof EvalFlags) => flags[name] !== undefined;
  if (model !== undefined && samples !== undefined) {
    throw new InputError("Give --model or --samples: what is measured is one of them");
  }
  if (data !== undefined && reference !== undefined) {
    throw new InputError("Give --data or --reference: samples are compared with one of them");
  }
  const made = isMade ? SAMPLING.find(idle) : undefined;
  if (made) {
    throw new InputError(
      `--${made} is for pictures of a model: ` +
        (samples === undefined ? "give a --model" : "those of --samples are made already"),
    );
  }
  if (samples !== undefined && metrics.includes("bpd")) {
    throw new InputError("bpd is a measure of a model: give a --model instead of --samples");
  }
  const wants = { neighbors: "nn", by: "bpd" } as const;
  for (const [name, metric] of Object.entries(wants) as [keyof typeof wants, Metric][]) {
    if (idle(name) && !metrics.includes(metric)) {
      throw new InputError(`--${name} is for --metric ${metric}`);
    }
  }
  if (flags.split !== undefined && data === undefined) {
    throw new InputError("--split is for --data");
  }
  if (flags.neighbors === "pixels" && reference !== undefined) {
    throw new InputError("--neighbors pixels looks at the training images: give --data");
  }
  if (count === 1) {
    throw new InputError("--count must be 2 at the least: one image has no variance");
  }
  const needsData = comparesWithData(metrics) || metrics.includes("bpd");
  if (data === undefined && (isMade && samples === undefined || needsData && !out && !reference)) {
    throw new InputError("eval needs --data: mnist, a folder or a file; or a --reference");
  }
  if (metrics.includes("bpd") && data === undefined) {
    throw new InputError("bpd is measured on images: give --data");
  }
  for (const [name, path, end] of [["out", out, "npz"], ["report", report, "html"]] as const) {
    if (path === undefined) continue;
    if (!path.toLowerCase().endsWith(`.${end}`)) {
      throw new InputError(`--${name} must end in .${end}, not ${path}`);
    }
    await checkWritable(path);
  }
}

/** Opens what is looked at and compared with. */
async function makePlan(
  flags: EvalFlags,
  metrics: readonly Metric[],
  progress: Progress,
  signal: AbortSignal,
): Promise<Evaluation> {
  const { data, reference: file } = flags;
  const space = (flags.neighbors ?? "features") as Space;
  const isData = isOfData(flags);
  // Without anything to compare with, parts are looked at, and compared when they are together.
  const canCompare = !isData && (data !== undefined || file !== undefined);
  const measured = metrics.filter((name) =>
    canCompare || !isData && !comparesWithData([name]) && name !== "bpd"
  );
  const usual = shippedFeatures.find((name) => name === data?.replace(/-test$/, "")) ?? "mnist";
  const chosen = await readFeatures(flags.features ?? usual, flags.weights);
  checkClassifies(chosen, metrics);
  const range = { first: flags.first, count: flags.count };
  const painter = isData || flags.samples !== undefined
    ? undefined
    : await openPainter(flags.model ?? "mnist");
  if (painter) checkShape(chosen, painter);
  const look = async (shape: Shape | undefined, captions: boolean) =>
    await referenceData(data!, flags.split ?? "train", chosen.shape ?? shape, captions, progress);
  const captioned = painter && await captionsFor(painter, flags, look);
  const found = painter
    ? await modelSubject(painter, flags, range, await readTexts(flags, captioned?.data), progress)
    : await pictureSubject(flags, chosen, range, progress);
  const subject = reduceSubject(found, chosen);
  if (measured.includes("class")) checkClasses(chosen, subject);
  if (measured.includes("bpd") && subject.model) checkBits(subject.model, subject.name);
  const texts = measured.includes("retrieval") ? textsOf(subject) : undefined;
  const left = metrics.filter((name) => !measured.includes(name)).join(", ");
  if (left) {
    progress.say(`${left}: not measured, there is no --data or --reference to compare with`);
  }
  const isFiles = subject.files.length > 0, compares = comparesWithData(measured);
  const reference = !compares
    ? undefined
    : file !== undefined
    ? await referenceFile(file)
    : captioned ?? await look(subject.shape, texts !== undefined);
  for (const part of subject.files) checkHolds(part, measured, ["features", "logits"]);
  if (reference?.file) checkHolds(reference.file, measured, ["features"]);
  const { file: known, source } = reference ?? {};
  const real = { name: reference?.name ?? "", count: source?.count ?? known?.statistics.count };
  checkCounts(measured, subject.count, compares ? real : undefined);
  const isUsed = !isFiles || reference?.source || flags.features !== undefined;
  return {
    ...{ metrics: measured, keepsFor: metrics, subject, reference, space, progress, signal },
    features: isUsed ? chosen : undefined,
    captions: texts && captionsOf(texts, reference!),
    wantsPictures: flags.report !== undefined,
  };
}

/** The texts of pictures. @throws {InputError} If they are not known. */
function textsOf({ name, texts }: Subject): readonly string[] {
  if (texts) return texts;
  throw new InputError(
    `retrieval looks for the captions of pictures, and those of ${name} are not known: give a ` +
      "--model that reads, and all of its images at once",
  );
}

/**
 * What is said of samples and real images.
 *
 * @throws {InputError} If real images have no captions, or not those of samples.
 */
function captionsOf(texts: readonly string[], { name: place, data }: Reference): Captions {
  const real = data?.captions?.map(([first]) => first);
  if (!real) {
    throw new InputError(`retrieval looks among the captions of real images: ${place} has none`);
  }
  const known = new Set(real), other = texts.find((text) => !known.has(text));
  if (other === undefined) return { samples: texts, real };
  throw new InputError(
    `retrieval looks for captions of real images, and "${other}" is none of those of ${place}`,
  );
}

/** What is looked at where no model makes it: pictures that were made already, or real ones. */
async function pictureSubject(
  { samples, data, split }: EvalFlags,
  features: Features,
  range: Range,
  progress: Progress,
): Promise<Subject> {
  if (samples === undefined) {
    return await dataSubject(await splitOf(data!, split), features.shape, range, progress);
  }
  const subject = await filesSubject(samples, range, progress);
  checkShape(features, subject);
  return subject;
}

/**
 * The real images whose captions a model that reads is asked for, where no flag says for what.
 *
 * @throws {InputError} If there are none.
 */
async function captionsFor(
  { name, model, shape }: Painter,
  flags: EvalFlags,
  look: (shape: Shape, captions: boolean) => Promise<Reference>,
): Promise<Reference | undefined> {
  const { prompt, prompts, data } = flags, { tokenize } = denoisingNetwork(model);
  if (!tokenize || prompt !== undefined || prompts !== undefined) return undefined;
  if (data !== undefined) return await look(shape, true);
  throw new InputError(
    `${name} paints what a text says: give --data with captions, --prompts FILE or --prompt TEXT`,
  );
}

/** The likelihood of real images that the model did not learn from. */
async function bitsOf(
  flags: EvalFlags,
  { subject: { model, shape } }: Evaluation,
  device: Device,
  progress: Progress,
  signal: AbortSignal,
): Promise<Bits> {
  const place = flags.data!, { by = "both", seed = 0 } = flags;
  const images = await openImages(await heldBack(place) ?? place, shape, progress);
  const count = Math.min(BITS_COUNT, images.count);
  const options = { by, count, seed, signal, steps: BITS_STEPS };
  return await measureBits(device, model!, images, options, progress);
}
