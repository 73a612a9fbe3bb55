/**
 * Guidance by a weaker model of the same images (Karras et al., "Guiding a diffusion model with a bad
 * version of itself", 2024).
 *
 * @module
 */

import type { Denoiser, DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { perItem } from "../../diffusion/items.ts";
import type { NoiseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import { formatShape, sameShape } from "../../shape.ts";
import { checkGuidance, extrapolate, type GuidanceOptions } from "./extrapolate.ts";

/**
 * Autoguidance: D_weak + w (D - D_weak), where the weaker model is a smaller one, or the same one
 * earlier in its training. It needs no classes; those that there are, both are told. It adds a
 * condition, `autoguidance`: the scale w of each item.
 *
 * @param weak The denoiser of the weaker model, with weights of another name than the stronger one's.
 * @example A model and what it was earlier
 * ```ts
 * import { autoguided, denoiserOf, initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
 *
 * const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const [earlier, model] = [0, 1].map((seed) => initializeModel(network, {}, seed));
 * const weak = denoiserOf(earlier, [8, 8], "weak");
 * using device = await openDevice("cpu");
 * using sampler = await Sampler.create(device, model, { steps: 3, batchSize: 2,
 *   wrap: [autoguided(weak, { scale: 1.7 })] });
 * console.log((await sampler.sample({ count: 2, conditions: { autoguidance: [1, 3] } })).count);
 * ```
 *
 * @throws {InputError} If a setting is out of range; when it is applied, if the two do not go
 * together.
 */
export function autoguided(weak: Denoiser, options: GuidanceOptions = {}): DenoiserWrapper {
  const { scale, rescale, isActive } = checkGuidance(options);
  const wrap = (denoiser: Denoiser): Denoiser => {
    checkWeak(weak, denoiser);
    const { schedule: { config }, itemShape: { length: rank } } = denoiser;
    return {
      ...denoiser,
      conditions: { ...denoiser.conditions, autoguidance: scale },
      weights: { ...denoiser.weights, ...weak.weights },
      estimate(query) {
        const worse = weak.estimate(query), better = denoiser.estimate(query);
        const each = perItem(query.conditions.autoguidance, rank);
        return extrapolate(config, query.level, { worse, better, scale: each, rescale });
      },
    };
  };
  return Object.assign(wrap, { isActive });
}

/** @throws {InputError} If a model cannot be guided by another one. */
function checkWeak(weak: Denoiser, denoiser: Denoiser): void {
  const refuse = (why: string) => new InputError(`Cannot guide by the weaker model: ${why}`);
  if (!sameShape(weak.itemShape, denoiser.itemShape)) {
    const [its, others] = [weak, denoiser].map(({ itemShape }) => formatShape(itemShape));
    throw refuse(`its items are ${its}, those of the model ${others}`);
  }
  if (!areAlike(weak.schedule, denoiser.schedule)) {
    throw refuse("it was trained on other noise levels than the model");
  }
  if (denoiser.conditions.autoguidance) throw refuse("the model is guided by one already");
  const [shared] = Object.keys(weak.weights).filter((name) => denoiser.weights[name]);
  if (shared) {
    throw refuse(
      `the weights of both are called ${shared}: give denoiserOf() another name for one`,
    );
  }
  for (const [name, { shape, dtype, below }] of Object.entries(weak.conditions)) {
    const own = denoiser.conditions[name];
    if (!own) throw refuse(`it is told ${name}, and the model is not`);
    if (!sameShape(own.shape, shape) || own.dtype !== dtype) {
      throw refuse(`it takes other ${name} than the model`);
    }
    if (own.below !== below) throw refuse(`it knows ${below} ${name}, and the model ${own.below}`);
  }
}

/** Whether networks are told the same of the same noise. */
const areAlike = (a: NoiseSchedule, b: NoiseSchedule): boolean =>
  a.sigmas.length === b.sigmas.length &&
  (a.config.predictionType === "edm") === (b.config.predictionType === "edm") &&
  a.sigmas.every((sigma, t) => sigma === b.sigmas[t] || Math.abs(sigma / b.sigmas[t] - 1) < 1e-5);
