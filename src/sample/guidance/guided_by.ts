/**
 * Guidance by any differentiable function of what the network takes x_0 for: no training, no labels.
 *
 * @module
 */

import type { DenoiserWrapper } from "../../diffusion/denoiser.ts";
import { perItem } from "../../diffusion/items.ts";
import { grad } from "../../gpu/grad.ts";
import { mul, neg } from "../../gpu/ops/map.ts";
import { sum } from "../../gpu/ops/sum.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { addConditions, addScore } from "./score.ts";

/**
 * What items should have little of, `[batch]` or a shape that broadcasts to it when summed: a
 * function of the estimate of x_0, which is not clipped, and of x_t.
 */
export type GuidanceLoss = (x0: Tensor, x: Tensor) => Tensor;

/** Settings of {@linkcode guidedBy}. */
export interface GuidedByOptions {
  /** How much the loss counts. @default {1} */
  readonly scale?: number;
  /** What the condition with the scale of each item is named after. @default {"guide"} */
  readonly name?: string;
}

/**
 * Guidance towards a small loss, one for each item: items are made as if their probability were
 * multiplied by e^(-scale · loss), by adding -scale · ∂loss/∂x_t to the score. The gradient goes
 * through the network, so that a step costs about three times as much. A mean over pixels is a small
 * loss, and a sum a large one: scales of 0.1 to 1 suit a sum of squares.
 *
 * The scale is a condition of each item, `guide_scale`, which compiles nothing anew. Several
 * wrappers need several names.
 *
 * @throws {InputError} If the denoiser has a condition of that name.
 *
 * @example A brightness: digits with much ink
 * ```ts
 * import { fetchModel, guidedBy, openDevice, Sampler } from "@x/ddpm";
 * import { mean, mul, reshape, square, sub } from "@x/ddpm/tensor";
 *
 * const bold = guidedBy((x0) => {
 *   const brightness = reshape(mean(x0, [1, 2, 3]), [x0.shape[0]]);
 *   return mul(square(sub(brightness, -0.5)), 784);
 * });
 * using device = await openDevice("cpu");
 * const settings = { steps: 10, batchSize: 1, wrap: [bold] };
 * using sampler = await Sampler.create(device, await fetchModel("mnist-unconditional"), settings);
 * const { data } = await sampler.sample({ seed: 1, conditions: { guide_scale: [0.5] } });
 * console.log(data.reduce((sum, x) => sum + x) / data.length); // about -0.5, usual is -0.75
 * ```
 *
 * @example A mirror symmetry
 * ```ts
 * import { fetchModel, guidedBy, openDevice, Sampler } from "@x/ddpm";
 * import { concat, reshape, slice, square, sub, sum } from "@x/ddpm/tensor";
 *
 * const symmetric = guidedBy((x0) => {
 *   const [count, , width] = x0.shape;
 *   const columns = Array.from({ length: width }, (_, i) => slice(x0, 2, width - 1 - i, 1));
 *   const difference = square(sub(x0, concat(columns, 2)));
 *   return reshape(sum(difference, [1, 2, 3]), [count]);
 * }, { scale: 0.25 });
 * using device = await openDevice("cpu");
 * const settings = { steps: 10, batchSize: 1, wrap: [symmetric] };
 * using sampler = await Sampler.create(device, await fetchModel("mnist-unconditional"), settings);
 * console.log((await sampler.sample({ seed: 1 })).count); // 1
 * ```
 *
 * @example Agreement with a picture of low resolution
 * ```ts
 * import { fetchModel, guidedBy, openDevice, Sampler } from "@x/ddpm";
 * import { averagePool, constant, reshape, square, sub, sum } from "@x/ddpm/tensor";
 *
 * const stroke = (i: number) => i % 7 === 3 && i > 7 && i < 42;
 * const small = Float32Array.from({ length: 49 }, (_, i) => stroke(i) ? 0.5 : -1);
 * const agreeing = guidedBy((x0) => {
 *   const difference = square(sub(averagePool(averagePool(x0)), constant(small, [1, 7, 7, 1])));
 *   return reshape(sum(difference, [1, 2, 3]), [x0.shape[0]]);
 * }, { scale: 5 });
 * using device = await openDevice("cpu");
 * const settings = { steps: 10, batchSize: 1, wrap: [agreeing] };
 * using sampler = await Sampler.create(device, await fetchModel("mnist-unconditional"), settings);
 * console.log((await sampler.sample({ seed: 1 })).count); // 1, a digit 1
 * ```
 */
export function guidedBy(
  loss: GuidanceLoss,
  { scale = 1, name = "guide" }: GuidedByOptions = {},
): DenoiserWrapper {
  const condition = `${name}_scale`;
  return (denoiser) => ({
    ...denoiser,
    conditions: addConditions(denoiser, { [condition]: { shape: [], dtype: "f32", none: scale } }),
    estimate(query) {
      const estimates = denoiser.estimate(query), { x, level, conditions } = query;
      const [gradient] = grad(sum(loss(estimates.sample, x)), [x]);
      const scales = perItem(conditions[condition], x.shape.length - 1);
      return addScore(estimates, level, neg(mul(gradient, scales)));
    },
  });
}
