/**
 * What training minimises, as a function of tensors.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { gather } from "../gpu/ops/gather.ts";
import { add, map, mul, sub } from "../gpu/ops/map.ts";
import type { RandomState } from "../gpu/ops/random.ts";
import { reshape, slice, stopGradient } from "../gpu/ops/view.ts";
import type { Level } from "../diffusion/denoiser.ts";
import { meanPerItem, perItem } from "../diffusion/items.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { boundTerms } from "../diffusion/vlb.ts";
import type { DenoisingNetwork, Forward, TrainableNetwork } from "../model/network.ts";
import type { ParameterSource } from "../model/parameters.ts";
import {
  addNoise,
  askNetwork,
  type LevelTensors,
  outputChannels,
} from "../diffusion/prediction.ts";
import { slopeOf, targetOf } from "../diffusion/prediction.ts";
import { NoiseSchedule, type ScheduleConfig } from "../diffusion/schedule.ts";

/**
 * What is minimised. `mse`, `l1` and `huber` (Huber 1964) compare what the network predicts with what
 * it should; `vlb` is the variational bound in bits a value (Ho et al. 2020, equation 5), and `hybrid`
 * is `mse` with a thousandth of the bound for learnt variances (Nichol and Dhariwal 2021, equation 16);
 * `classifier`, for networks of that kind, is the cross entropy of classes of noised images,
 * `autoencoder`, for networks of that kind, {@linkcode autoencoderLoss}, and `contrastive`, for dual
 * encoders, {@linkcode contrastiveLoss}.
 */
export type ObjectiveName =
  | "mse"
  | "l1"
  | "huber"
  | "vlb"
  | "hybrid"
  | "classifier"
  | "autoencoder"
  | "contrastive";

/**
 * How much each noise level counts: `constant` all the same in what the network predicts; `min_snr`
 * min(SNR, γ) in x_0 (Hang et al. 2023); `edm` (σ² + σ_d²) / (σ σ_d)² in x_0 (Karras et al. 2022).
 */
export type LossWeighting = "constant" | "min_snr" | "edm";

/** The objective among the settings of a training. */
export interface ObjectiveConfig {
  /** What is minimised. @default {"mse"} */
  readonly objective: ObjectiveName;
  /** From where on `huber` is linear; 1 if `null`. @default {null} */
  readonly huberDelta: number | null;
  /** How much each noise level counts in `mse`, `l1` and `huber`. @default {"constant"} */
  readonly lossWeighting: LossWeighting;
  /** γ of `min_snr`; 5 if `null`. @default {null} */
  readonly snrGamma: number | null;
}

/** The objective of Ho et al. 2020, equation 14. */
export const SIMPLE: ObjectiveConfig = {
  ...{ objective: "mse", huberDelta: null, lossWeighting: "constant", snrGamma: null },
};

/** The share of the bound in the hybrid objective. */
const HYBRID_SHARE = 0.001;
/** The first of the streams of random numbers that dropout uses. */
const DROPOUT_STREAM = 1000;

/** What one step learns from. */
export interface Batch {
  /** `[batch, ...shape]`, pictures in [-1, 1]. */
  readonly images: Tensor;
  /** Standard normals of the same shape. */
  readonly noise: Tensor;
  /** `i32` `[batch]` in [0, T). */
  readonly timesteps: Tensor;
  /** `f32` `[batch]`, σ / α for networks that predict as `edm`, instead of those of the timesteps. */
  readonly sigmas?: Tensor;
  /** The value of every condition of the network. */
  readonly conditions?: Readonly<Record<string, Tensor>>;
  /** `i32` `[batch]`, the classes that a classifier is to find. */
  readonly labels?: Tensor;
  /** For dropout. */
  readonly random?: RandomState;
}

/** The objectives of networks of some kinds, which are for no others. */
const ownObjectives: Readonly<Partial<Record<TrainableNetwork["kind"], ObjectiveName>>> = {
  ...{ classifier: "classifier", autoencoder: "autoencoder", "dual encoder": "contrastive" },
};

/** A UNet begins with a consonant. */
const withArticle = (word: string) => `${/^[aeio]/i.test(word) ? "an" : "a"} ${word}`;

/** @throws {InputError} If objective, schedule and network do not go together. */
export function checkObjective(
  { objective }: ObjectiveConfig,
  schedule: ScheduleConfig | undefined,
  network: TrainableNetwork,
): void {
  const { kind, className } = network;
  for (const [own, objectiveOfOwn] of Object.entries(ownObjectives)) {
    if ((kind === own) === (objective === objectiveOfOwn)) continue;
    throw new InputError(
      `Cannot train ${withArticle(className)} by ${objective}: ` +
        (kind === own
          ? `the objective of ${own}s is ${objectiveOfOwn}`
          : `it is ${withArticle(kind)}`),
    );
  }
  if (network.kind !== "denoiser" || !schedule) return;
  const { itemShape, outChannels } = network;
  const inChannels = itemShape[itemShape.length - 1]!;
  const { varianceType } = schedule, wanted = outputChannels(schedule, inChannels);
  const learnsVariances = objective === "vlb" || objective === "hybrid";
  if (varianceType === "learned_range" && !learnsVariances) {
    throw new InputError(
      `Cannot train by ${objective} with the variance_type learned_range: the objectives that learn ` +
        "variances are hybrid and vlb",
    );
  }
  if (varianceType !== "learned_range" && objective === "hybrid") {
    throw new InputError(
      `Cannot train by hybrid with the variance_type ${varianceType}: hybrid is for learned_range`,
    );
  }
  if (outChannels !== wanted) {
    throw new InputError(
      `Cannot train: with in_channels ${inChannels} and the variance_type ${varianceType} a ` +
        `network has out_channels ${wanted}, not ${outChannels}`,
    );
  }
}

/**
 * The loss of each image, `[batch]`, means over its values.
 *
 * @param onSegment Called for segments of the network; see {@linkcode Forward}.
 */
export function diffusionLosses(
  network: DenoisingNetwork,
  schedule: ScheduleConfig,
  settings: ObjectiveConfig,
  parameter: ParameterSource,
  batch: Batch,
  onSegment?: Forward["onSegment"],
): Tensor {
  const { images, noise, timesteps, conditions = {} } = batch;
  const tables = new NoiseSchedule(schedule), { time, ...level } = levelsOf(tables, batch);
  const { output, variance } = askNetwork(
    schedule,
    addNoise(images, noise, level),
    level,
    (sample) =>
      network.forward(forwardOf(parameter, batch, onSegment), {
        ...{ sample, timestep: time, conditions },
      }),
  );
  const difference = sub(output, targetOf(schedule, { sample: images, epsilon: noise }, level));
  const penalty = (f: Penalty) => meanPerItem(map([difference], f));
  const bound = (difference: Tensor) => {
    const error = mul(difference, slopeOf(schedule, level));
    const range = variance ? { variance } : {};
    return mul(boundTerms(tables, { images, timesteps, error, ...range }), tables.betas.length);
  };
  switch (settings.objective) {
    case "vlb":
      return bound(difference);
    case "hybrid":
      return add(penalty(square), mul(bound(stopGradient(difference)), HYBRID_SHARE));
    case "classifier":
    case "autoencoder":
    case "contrastive":
      throw new TypeError(`Denoisers do not learn by ${settings.objective}`);
    default: {
      const losses = penalty(penalties[settings.objective](settings));
      if (settings.lossWeighting === "constant") return losses;
      return mul(losses, meanPerItem(weightOf(settings, schedule, level)));
    }
  }
}

/** What a network is given to learn. */
export const forwardOf = (
  parameter: ParameterSource,
  { random }: Pick<Batch, "random">,
  onSegment?: Forward["onSegment"],
): Forward => ({
  parameter,
  ...(onSegment ? { onSegment } : {}),
  ...(random ? { random, firstStream: DROPOUT_STREAM } : {}),
});

/** The noise of each item, of shape `[batch, 1, ...]`, and what the network is told of it. */
export function levelsOf(schedule: NoiseSchedule, { images, timesteps, sigmas }: Batch): Level {
  const rows = Array.from(schedule.alphasCumprod, (_, t) => schedule.levelAt(t));
  const values = rows.flatMap(({ time, alpha, sigma }) => [time, alpha, sigma]);
  const row = gather(constant(values, [rows.length, 3]), timesteps), [count] = timesteps.shape;
  const rank = images.shape.length - 1;
  const column = (i: number) => reshape(slice(row, 1, i, 1), [count]);
  const levelIn = (i: number) => perItem(column(i), rank);
  if (!sigmas) return { time: column(0), alpha: levelIn(1), sigma: levelIn(2) };
  const ratio = perItem(sigmas, rank);
  const alpha = map([ratio], (s) => e.div(1, e.sqrt(e.add(1, e.mul(s, s)))));
  return {
    alpha,
    sigma: mul(ratio, alpha),
    time: map([sigmas], (s) => e.mul(0.25, e.log(s))),
  };
}

type Penalty = (difference: e.Expression) => e.Expression;
const square: Penalty = (d) => e.mul(d, d);
const magnitude: Penalty = (d) => e.max(d, e.neg(d));

/** What a difference costs. */
const penalties: Record<"mse" | "l1" | "huber", (settings: ObjectiveConfig) => Penalty> = {
  mse: () => square,
  l1: () => magnitude,
  huber: ({ huberDelta }) => (d) => {
    const delta = huberDelta ?? 1;
    const linear = e.mul(delta, e.sub(magnitude(d), delta / 2));
    return e.select(e.less(magnitude(d), delta), e.mul(0.5, square(d)), linear);
  },
};

/** The factor of each noise level, for errors of what the network predicts. */
function weightOf(
  { lossWeighting, snrGamma }: ObjectiveConfig,
  schedule: ScheduleConfig,
  level: LevelTensors,
): Tensor {
  const slope = slopeOf(schedule, level), { alpha, sigma } = level, data = schedule.sigmaData ** 2;
  return map([slope, alpha, sigma], (slope, a, s) => {
    const images = square(a), noise = square(s);
    const ofSample = lossWeighting === "min_snr"
      ? e.min(e.div(images, noise), snrGamma ?? 5)
      : e.div(e.add(noise, e.mul(images, data)), e.mul(noise, data));
    return e.mul(ofSample, square(slope));
  });
}
