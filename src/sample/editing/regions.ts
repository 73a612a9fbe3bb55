/**
 * Different conditions in different regions of an item (as in Bar-Tal et al., "MultiDiffusion", 2023,
 * with regions of one window).
 *
 * @module
 */

import type { Condition, Denoised, Denoiser, DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import * as e from "../../gpu/expression.ts";
import { concat } from "../../gpu/ops/concat.ts";
import { map } from "../../gpu/ops/map.ts";
import { slice } from "../../gpu/ops/view.ts";
import type { Tensor } from "../../gpu/tensor.ts";

/**
 * Has the denoiser asked twice, in one batch: with `labels`, and with the condition `other_labels`;
 * where the condition `region` `[..., 1]` is 1, the second answer counts.
 *
 * @throws {InputError} If the denoiser has no classes.
 *
 * @example
 * ```ts
 * import { initializeModel, openDevice, parseNetwork, regions, Sampler } from "@x/ddpm";
 *
 * const network = parseNetwork({ sample_size: 8, num_class_embeds: 10, block_out_channels: [8],
 *   norm_num_groups: 4, down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * using device = await openDevice("cpu");
 * const options = { steps: 2, batchSize: 1, wrap: [regions] };
 * using sampler = await Sampler.create(device, initializeModel(network, {}, 0), options);
 * const region = Float32Array.from({ length: 64 }, (_, i) => i % 8 < 4 ? 0 : 1);
 * await sampler.sample({ labels: [3], conditions: { other_labels: [8], region } });
 * ```
 */
export const regions: DenoiserWrapper = (denoiser): Denoiser => {
  const { itemShape, conditions: known } = denoiser;
  const labels: Condition | undefined = known.labels;
  if (!labels) throw new InputError("The model has no classes: regions make no sense");
  return {
    ...denoiser,
    conditions: {
      ...known,
      other_labels: labels,
      region: { shape: [...itemShape.slice(0, -1), 1], dtype: "f32" },
    },
    estimate(query) {
      const { x, level, conditions: { region, other_labels, ...conditions } } = query;
      const [batch] = x.shape, twice = (x: Tensor) => x.shape[0] === 1 ? x : concat([x, x], 0);
      const both = Object.entries(conditions).map(([name, value]) =>
        [name, concat([value, name === "labels" ? other_labels : value], 0)] as const
      );
      const said = denoiser.estimate({
        ...query,
        x: concat([x, x], 0),
        level: {
          time: concat([level.time, level.time], 0),
          alpha: twice(level.alpha),
          sigma: twice(level.sigma),
        },
        conditions: Object.fromEntries(both),
      });
      const mixed = Object.entries(said).map(([name, value]: [string, Tensor]) => {
        const [one, other] = [0, batch].map((start) => slice(value, 0, start, batch));
        const mix = map([region, one, other], (m, a, b) => e.add(a, e.mul(m, e.sub(b, a))));
        return [name, mix] as const;
      });
      return Object.fromEntries(mixed) as unknown as Denoised;
    },
  };
};
