/**
 * Classifier-free guidance (Ho and Salimans 2022): away from what a model would paint without its
 * conditions, or with others, by a wrapper around its denoiser.
 *
 * @module
 */

import type { Condition, Denoised, Denoiser, DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { perItem } from "../../diffusion/items.ts";
import { InputError } from "../../errors.ts";
import { concat } from "../../gpu/ops/concat.ts";
import { slice } from "../../gpu/ops/view.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { checkGuidance, extrapolate, type GuidanceOptions } from "./extrapolate.ts";

/** What the condition is called that the unguided branch has in place of another one. */
const negativeOf = (name: string) => `negative_${name}`;

/** Whether a condition can be something else for the unguided branch: "none", or another class or text. */
const isVaried = ({ none, below, hasNegative }: Condition) =>
  hasNegative ?? (none !== undefined || below !== undefined);

/**
 * Classifier-free guidance: e_u + w (e_c - e_u), where e_c is estimated with the conditions that are
 * given and e_u with "none" in their place, both in one batch of one program. It adds conditions:
 * `guidance`, the scale w of each item, and `negative_labels`, classes in place of "none"; for other
 * conditions than labels likewise: `negative_encoder_hidden_states`, a text to lead away from, which
 * must be given, since no number stands for no text. What shows a picture, such as a mask, is the same
 * for both. Another class or scale compiles nothing. A wrapper that draws random numbers belongs around
 * this one, not into it.
 *
 * Scale 1 is the model itself: leave the wrapper out, and it costs half.
 *
 * @example A model of three classes and "none"
 * ```ts
 * import { guided, initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
 *
 * const network = parseNetwork({ sample_size: 8, num_class_embeds: 4, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const model = initializeModel(network, {}, 0, ["cat", "dog", "bird"]);
 * using device = await openDevice("cpu");
 * using sampler = await Sampler.create(device, model, { steps: 3, batchSize: 2,
 *   wrap: [guided({ scale: 2, interval: [0.3, 1.6], rescale: 0.7 })] });
 * const pair = await sampler.sample({ count: 2, labels: [0, 1] });
 * const apart = await sampler.sample({ count: 2, labels: [0, 0],
 *   conditions: { guidance: [1.5, 4], negative_labels: [1, 2] } });
 * console.log(pair.count, apart.count);
 * ```
 *
 * @example A text, and another one to lead away from, as a text encoder gives them
 * ```ts
 * import { guided, initializeModel, openDevice, parseNetwork, Sampler } from "@x/ddpm";
 *
 * const network = parseNetwork({ _class_name: "UNet2DConditionModel", sample_size: 8,
 *   block_out_channels: [8], norm_num_groups: 4, down_block_types: ["CrossAttnDownBlock2D"],
 *   up_block_types: ["CrossAttnUpBlock2D"], cross_attention_dim: 16 });
 * using device = await openDevice("cpu");
 * using sampler = await Sampler.create(device, initializeModel(network, {}, 0),
 *   { steps: 2, batchSize: 1, wrap: [guided({ scale: 7.5 })] });
 * const text = new Float32Array(77 * 16).fill(1), negative = new Float32Array(77 * 16);
 * const latents = await sampler.sample({
 *   conditions: { encoder_hidden_states: text, negative_encoder_hidden_states: negative },
 * });
 * console.log(latents.shape); // [8, 8, 4]
 * ```
 *
 * @throws {InputError} If a setting is out of range; when it is applied, if the denoiser has no
 * condition that can be left out.
 */
export function guided(options: GuidanceOptions = {}): DenoiserWrapper {
  const { scale, rescale, isActive } = checkGuidance(options);
  const wrap = (denoiser: Denoiser): Denoiser => {
    const { conditions, schedule: { config }, itemShape: { length: rank } } = denoiser;
    const varied = Object.keys(conditions).filter((name) => isVaried(conditions[name]));
    if (!varied.length) {
      throw new InputError("Cannot guide the model: it has no classes, or nothing like them");
    }
    if (conditions.guidance) throw new InputError("Cannot guide twice by the same conditions");
    return {
      ...denoiser,
      conditions: {
        ...conditions,
        guidance: scale,
        ...Object.fromEntries(varied.map((name) => [negativeOf(name), conditions[name]])),
      },
      estimate({ x, level, conditions: given, random }) {
        const [batch] = x.shape, twice = (x: Tensor, other = x) => concat([x, other], 0);
        // One level for all stands for both branches as it is.
        const both = (x: Tensor) => x.shape[0] === batch ? twice(x) : x;
        const estimates = denoiser.estimate({
          x: twice(x),
          level: {
            time: twice(level.time),
            alpha: both(level.alpha),
            sigma: both(level.sigma),
          },
          conditions: Object.fromEntries(
            Object.keys(conditions).map((name) => [
              name,
              twice(given[name], given[varied.includes(name) ? negativeOf(name) : name]),
            ]),
          ),
          random,
        });
        const [better, worse] = [0, batch].map((from) => partOf(estimates, from, batch));
        const each = perItem(given.guidance, rank);
        return extrapolate(config, level, { worse, better, scale: each, rescale });
      },
    };
  };
  return Object.assign(wrap, { isActive });
}

/** What was estimated of some items. */
const partOf = ({ sample, epsilon, variance }: Denoised, from: number, count: number): Denoised => {
  const part = (x: Tensor) => slice(x, 0, from, count);
  return {
    ...{ sample: part(sample), epsilon: part(epsilon) },
    ...(variance ? { variance: part(variance) } : {}),
  };
};
