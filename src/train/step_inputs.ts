/**
 * The inputs of a training step: the split of the data, the tensors of a batch, and checks that model,
 * data and settings fit together.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { constant, input } from "../gpu/tensor.ts";
import type { Condition } from "../diffusion/denoiser.ts";
import type { Model, Trainable } from "../model/model.ts";
import type { DualEncoderNetwork } from "../model/dual_encoder.ts";
import {
  type AutoencoderNetwork,
  isOfNoisyItems,
  toldOf,
  type TrainableNetwork,
} from "../model/network.ts";
import type { TrainingConfig } from "./config.ts";
import { type Dataset, ImageOrder } from "../data/dataset.ts";
import { checkClasses } from "./classification.ts";
import { checkObjective } from "./objective.ts";
import type { StepSpec } from "./step.ts";
import { drawTimesteps } from "./timesteps.ts";

/** The random stream of the noise; `timesteps.ts` has another. */
const NOISE_STREAM = 12;
/** A step number that training never reaches, for the random numbers of evaluations. */
const EVALUATION = 2 ** 31 - 1;

/** The shape of an item. */
export type ItemSize = Pick<Dataset, "shape">;

/** What a step is about, without its weights. */
export type Untrained =
  | Pick<Model, "network" | "schedule">
  | { readonly network: AutoencoderNetwork | DualEncoderNetwork };

/** Images computed at a time: the micro-batch, or the batch. */
export const partOf = ({ batchSize, microBatch }: TrainingConfig): number =>
  microBatch ?? batchSize;

/**
 * What a step, or an evaluation, over `images` images is traced from, for `part` images at a time.
 *
 * @throws {InputError} If network, schedule and objective do not fit together.
 */
export function makeStepSpec(
  model: Untrained,
  { shape: item }: ItemSize,
  settings: TrainingConfig,
  { part, images: total, isEvaluation = false, recomputes = settings.gradientCheckpointing }: {
    readonly part: number;
    readonly images: number;
    readonly isEvaluation?: boolean;
    readonly recomputes?: boolean;
  },
): StepSpec {
  const shape = [part, ...item], images = input("images", shape);
  checkObjective(settings, "schedule" in model ? model.schedule : undefined, model.network);
  const random: RandomState = {
    seed: input("seed", [2], "i32"),
    first: input("first", [1], "i32"),
    step: isEvaluation ? constant(new Int32Array([EVALUATION])) : input("step", [1], "i32"),
  };
  if (!("schedule" in model)) {
    const { network } = model;
    if (network.kind === "dual encoder") {
      const texts = {
        tokens: input("tokens", [part, ...network.tokens.shape], "i32"),
        said: input("said", [part, part]),
      };
      return { network, texts, batch: { images }, images: total, recomputes };
    }
    // Those that are held out are decoded from the means of their latents.
    const batch = { images, ...(isEvaluation ? {} : { random }) };
    return { network, batch, images: total, recomputes };
  }
  const { schedule, network } = model, { timestepSampling: sampling } = settings;
  const draws = isEvaluation && sampling !== "log_normal"
    ? { ...settings, timestepSampling: "uniform" as const }
    : settings;
  const derived = Object.entries(network.derived ?? {});
  const { labels, tokens } = network.conditions(item);
  const batch = {
    images,
    noise: randomNormal(shape, random, NOISE_STREAM),
    ...drawTimesteps(draws, schedule, part, random),
    conditions: {
      ...(labels ? { labels: input("labels", [part], "i32") } : {}),
      ...(tokens ? { tokens: input("tokens", [part, ...tokens.shape], "i32") } : {}),
      ...Object.fromEntries(derived.map(([name, derive]) => [name, derive(images, random)])),
    },
    ...(network.kind === "classifier" ? { labels: input("labels", [part], "i32") } : {}),
    ...(network.hasDropout && !isEvaluation ? { random } : {}),
  };
  return { network, schedule, objective: settings, batch, images: total, recomputes };
}

/** Indices of the training images, and of those held out for validation. */
export interface Split {
  readonly learnt: Uint32Array;
  readonly heldOut: Uint32Array;
}

/** Draws the images to hold out for validation. */
export function trainValidationSplit(count: number, { heldOut, seed }: TrainingConfig): Split {
  const all = new Uint32Array(count).map((_, i) => i);
  if (!heldOut) return { learnt: all, heldOut: new Uint32Array() };
  const order = new ImageOrder(count, seed), drawn = all.map((i) => order.at(i));
  const first = Math.max(1, Math.round(heldOut * count));
  return { learnt: drawn.subarray(first), heldOut: drawn.subarray(0, first) };
}

/** @throws {InputError} If network, data and settings do not fit together. */
export function checkFits({ network }: Trainable, data: Dataset, settings: TrainingConfig): void {
  if (settings.heldOut && data.count < 2) {
    throw new InputError(`Cannot hold images of ${data.name} out: it has ${data.count}`);
  }
  if (network.kind === "autoencoder") return checkPictures(network, data);
  const { labels, tokens, ...others } = toldOf(network, data.shape);
  if (!isOfNoisyItems(network)) return checkCaptions(network, tokens, data);
  const { derived = {} } = network;
  const other = Object.keys(others).find((name) => !derived[name]);
  if (other) {
    throw new InputError(
      `Cannot train: ${data.name} has nothing for the network's condition ${other}`,
    );
  }
  if (network.kind === "classifier") checkClasses(network, data);
  checkCaptions(network, tokens, data);
  if (labels || !tokens) checkLabels(labels, data, settings);
}

/** @throws {InputError} If an autoencoder cannot make latents of the items. */
function checkPictures(
  { className, factor, itemShape }: AutoencoderNetwork,
  { name, shape }: Dataset,
): void {
  const [height, width, channels] = shape, wanted = itemShape.at(-1);
  if (shape.length !== 3 || channels !== wanted) {
    throw new InputError(
      `Cannot train: items of ${name} are ${
        shape.join("x")
      }, but the ${className} is for pictures ` +
        `of ${wanted} ${wanted === 1 ? "channel" : "channels"}`,
    );
  }
  if (height % factor === 0 && width % factor === 0) return;
  const next = (n: number) => Math.ceil(n / factor) * factor, [h, w] = [height, width].map(next);
  throw new InputError(
    `Cannot train: pictures of ${name} are ${width}x${height}, but the ${className} makes latents ` +
      `${factor} times smaller: sides must be multiples of that, as of ${w}x${h}`,
  );
}

/** @throws {InputError} If the network is told captions, and there are none. */
function checkCaptions(
  network: TrainableNetwork,
  tokens: Condition | undefined,
  { name, captions }: Dataset,
): void {
  if (!tokens) return;
  if (!("tokenize" in network && network.tokenize)) {
    throw new InputError(
      "Cannot train: the network's class does not say how captions are its tokens",
    );
  }
  if (!captions) {
    throw new InputError(`Cannot train: the network is told captions, but ${name} has none`);
  }
  const silent = captions.findIndex((said) => !said.length);
  if (silent < 0) return;
  throw new InputError(`Cannot train: image ${silent} of ${name} has no caption`);
}

/** @throws {InputError} If the labels of the data are not classes of the network. */
function checkLabels(
  condition: Condition | undefined,
  { name, labels, labelProblem }: Dataset,
  { labelDropout }: TrainingConfig,
) {
  if (!condition) {
    if (!labelDropout) return;
    throw new InputError("Cannot train with label_dropout: the network has no classes");
  }
  if (condition.below === undefined) {
    throw new InputError(
      "Cannot train: networks whose classes are no whole numbers (class_embed_type timestep and " +
        "identity) are not supported",
    );
  }
  if (!labels) {
    throw new InputError(
      `Cannot train: the network has classes, but ${name} has no labels` +
        (labelProblem ? `: ${labelProblem}` : ""),
    );
  }
  const classes = labelDropout ? condition.below - 1 : condition.below;
  const bad = Array.from(labels).find((c) => !(Number.isInteger(c) && c >= 0 && c < classes));
  if (bad !== undefined) {
    throw new InputError(
      `Cannot train: ${name} has the label ${bad}, but the network has classes 0 to ` +
        `${classes - 1}${labelDropout ? ", and one more for label_dropout" : ""}`,
    );
  }
}
