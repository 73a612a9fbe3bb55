/**
 * Models as denoisers.
 *
 * @module
 */

import { type Conditions, type Denoiser, denoiserFrom } from "../diffusion/denoiser.ts";
import { outputChannels } from "../diffusion/prediction.ts";
import { NoiseSchedule } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import type { Model } from "./model.ts";
import { type DenoisingNetwork, itemOf, type Network } from "./network.ts";
import { parameterInputs, viewParameters, type WeightDType } from "./parameters.ts";
import { weightsOf } from "./weights.ts";

/**
 * The network of a model that denoises.
 *
 * @throws {InputError} If it is of another kind.
 */
export function denoisingNetwork(
  { network }: { readonly network: Network },
): DenoisingNetwork {
  if (network.kind === "denoiser") return network;
  throw new InputError(`The model is a ${network.kind}, which makes nothing out of noise`);
}

/** What a model is told beside noisy items, with what stands for "none" among its classes. */
export function conditionsOf(
  { network, classes }: Pick<Model, "network" | "classes">,
  item: readonly number[],
): Conditions {
  const conditions = network.conditions(item), { labels } = conditions;
  const none = classes?.length;
  if (none === undefined || none + 1 !== labels?.below) return conditions;
  return { ...conditions, labels: { ...labels, none } };
}

/**
 * The denoiser of a model.
 *
 * @param size Height and width; by default those the model was made for.
 * @param weights The name of the input that its parameters are read from, or of the first of several.
 * @param weightDType How they lie on a device.
 * @throws {InputError} If the model is no denoiser, or not one for this size.
 */
export function denoiserOf(
  model: Model,
  size?: readonly number[],
  weights = "parameters",
  weightDType: WeightDType = "f32",
): Denoiser {
  const network = denoisingNetwork(model), itemShape = itemOf(network, size);
  const schedule = new NoiseSchedule(model.schedule), channels = itemShape[itemShape.length - 1];
  if (network.outChannels !== outputChannels(model.schedule, channels)) {
    throw new InputError(
      `The network predicts ${network.outChannels} channels of images that have ${channels}, with ` +
        `variance_type ${model.schedule.varianceType}`,
    );
  }
  const { layout } = network, shards = parameterInputs(layout, weights, weightDType);
  return denoiserFrom(
    (sample, timestep, conditions) => {
      const parameter = viewParameters(layout, shards, { weightDType, event: sample });
      return network.forward({ parameter }, { sample, timestep, conditions });
    },
    {
      ...{ schedule, itemShape, conditions: conditionsOf(model, itemShape) },
      weights: weightsOf(model, weights, weightDType),
    },
  );
}
