/**
 * From a request to what has to be compiled and computed for it, by the same rules as `ddpm sample`.
 *
 * @module
 */

import { readImageHeader } from "../../data/datasets/image.ts";
import { InputError } from "../../errors.ts";
import type { Device } from "../../gpu/device.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import { itemOf } from "../../model/network.ts";
import { walkNoise } from "../../sample/interpolate.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import type { SamplerOptions, Samples, SamplingStep, StreamOptions } from "../../sample/options.ts";
import type { GenerationPreview } from "../../sample/text_to_image_options.ts";
import { type Classes, type ClassPlan, planClasses } from "../commands/class_flags.ts";
import { readEdit } from "../commands/edit.ts";
import { planSampling } from "../commands/sampling_plan.ts";
import { createSampler } from "../commands/samplers.ts";
import type { Provenance } from "../../sample/provenance.ts";
import { type JobRequest, MAX_SENT_SIDE } from "./schemas.ts";

/** The largest batch. */
const MAX_BATCH = 16;

/** A step; where samples are no pictures, it can be asked for these until the next one. */
export type PaintedStep = SamplingStep & Partial<Pick<GenerationPreview, "pictures">>;

/** Something compiled that makes pictures; a `Sampler` is one. */
export interface Painter extends Disposable {
  readonly steps: number;
  /** Bytes that it takes on the device, without weights. */
  readonly memory: number;
  stream(options: StreamOptions): AsyncGenerator<PaintedStep, Samples>;
}

/** What is to be done for a request. */
export interface Plan {
  readonly count: number;
  /** The same for plans that the same painter serves; none where it is not worth keeping. */
  readonly key?: string;
  /** Bytes of the painter's weights. */
  readonly weights: number;
  compile(device: Device): Promise<Painter>;
  readonly options: StreamOptions;
  /** Restores what was to be kept. */
  finish(images: Samples): Samples;
  /** What the file of a picture says. */
  provenance(index: number): Provenance;
  /** What it says to other programs. */
  parameters?(index: number): string;
  /** Whether steps are not shown: no safety checker has seen them. */
  readonly hidesSteps?: boolean;
  /** The pictures that are not to be sent, and why, in words. */
  withheld?(): ReadonlyMap<number, string>;
}

/**
 * Plans a job.
 *
 * @throws {InputError} If the model cannot do that.
 */
export async function planJob(
  model: Model,
  name: string,
  request: JobRequest,
): Promise<Plan> {
  const { seed, count, walk, prompt, negative_prompt: negative } = request;
  const network = denoisingNetwork(model), { itemShape, multiple = 1 } = network;
  const { autoencoder } = model, factor = autoencoder?.network.factor, scale = factor ?? 1;
  const asked = sizeAsked(
    request,
    paintedShape(model, itemShape),
  );
  if (asked?.some((side) => side % (multiple * scale))) {
    throw new InputError(`width and height must be multiples of ${multiple * scale} for ${name}`);
  }
  const shape = itemOf(network, asked?.map((side) => side / scale));
  const edit = await readEdit(
    present({
      ...{ init: request.init && "init", mask: request.mask && "mask" },
      strength: request.strength,
    }),
    paintedShape(model, shape),
    ...[request.sampler, { say() {} }, factor, sent(request)] as const,
  );
  if (negative !== undefined && prompt === undefined) {
    throw new InputError("negative_prompt is for a prompt");
  }
  const prompts = prompt === undefined ? undefined : { texts: [prompt], negative: negative ?? "" };
  const plan = await planSampling(model, {
    ...{ place: name, shape, seed, prompts, edit, counts: { count, usual: count } },
    flags: present({
      ...{ sampler: request.sampler, steps: request.steps, sigmas: request.sigmas },
      ...{ eta: request.eta, guidance: request.guidance },
      "guidance-interval": request.guidance_interval?.join(","),
    }),
    chooseClasses: (known) => chooseClasses(request, known, name),
  });
  const { classes: { names }, guidance } = plan, { wrap, ...options } = plan.sampler;
  const { guidance: guidanceScale, ...kind } = guidance.facts, isGuided = guidance.wrap.length > 0;
  const settings: SamplerOptions & { readonly batchSize: number } = {
    ...{ ...options, size: shape.slice(0, -1) },
    batchSize: Math.ceil(count / Math.ceil(count / MAX_BATCH)),
  };
  if (walk && request.init) throw new InputError("walk starts from noise, and init from a picture");
  return {
    count,
    key: JSON.stringify([name, settings, isGuided && kind, edit.wrap.length]),
    weights: 4 * (network.layout.size + (autoencoder?.network.layout.size ?? 0)),
    compile: (device) => createSampler(device, model, { ...settings, wrap }),
    options: {
      ...plan.sample,
      ...(walk ? { start: walkNoise(shape, { seed, count }, walk) } : {}),
      conditions: {
        ...plan.sample.conditions,
        // Another scale compiles nothing.
        ...(isGuided ? { guidance: [Number(guidanceScale)] } : {}),
      },
    },
    finish: edit.finish,
    provenance: (image) => ({
      ...plan.provenance,
      ...(walk ? { walk: `${walk.share} to seed ${walk.seed}` } : {}),
      image,
      ...(names ? { class: names[image] } : {}),
    }),
  };
}

/** The fields that are there. */
export const present = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };

/** Height and width, where they are asked for. */
function sizeAsked(
  { width, height }: JobRequest,
  [ownHeight, ownWidth]: readonly (number | null)[],
): number[] | undefined {
  if (width === undefined && height === undefined) return undefined;
  const size = [height ?? ownHeight, width ?? ownWidth];
  if (ownHeight !== null && (size[0] !== ownHeight || size[1] !== ownWidth)) {
    throw new InputError(
      `The model makes pictures of ${ownWidth}x${ownHeight} pixels, not ${size[1]}x${size[0]}`,
    );
  }
  if (size.every((n) => n !== null)) return size;
  throw new InputError("Give width and height: the model is for pictures of any size");
}

/** Classes by name, or by number. */
function chooseClasses(request: JobRequest, classes: Classes | undefined, name: string): ClassPlan {
  const { labels, count, seed, init } = request;
  if (labels === undefined) {
    return planClasses(present({ class: request.class }), classes, name, {
      ...{ count, usual: count, seed, prefersNone: init !== undefined },
    });
  }
  if (!classes || request.class !== undefined) {
    throw new InputError(
      classes ? "Give class or labels: both say the same" : `${name} has no classes`,
    );
  }
  const { names, none } = classes, known = none === undefined ? names.length : none + 1;
  const bad = labels.find((label) => label >= known);
  if (bad !== undefined) throw new InputError(`Label ${bad} is not one of 0 to ${known - 1}`);
  const all = Array.from({ length: count }, (_, k) => labels[k % labels.length]);
  return { count, labels: all, names: all.map((n) => n === none ? "none" : names[n]) };
}

/** What reads the pictures of a request, by their fields. */
export const sent = (request: JobRequest) => (field: string) =>
  Promise.resolve(decodePicture(field, request[field as "init" | "mask"]!));

/** The bytes of a picture that was sent, if they can be one. */
function decodePicture(field: string, text: string): Uint8Array<ArrayBuffer> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Uint8Array.fromBase64(text.replace(/^data:[\w/+.-]+;base64,/, ""));
  } catch {
    throw new InputError(`Cannot read ${field}: it is no base64`);
  }
  const { width, height } = readImageHeader(bytes, field);
  if (Math.max(width, height) <= MAX_SENT_SIDE) return bytes;
  throw new InputError(
    `Cannot use ${field}: ${width}x${height} is more than ${MAX_SENT_SIDE} a side`,
  );
}
