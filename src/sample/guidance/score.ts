/**
 * What guidance by gradients has in common: the score of noisy items, ∇ log p(x_t) = -ε / σ, with a
 * gradient added to it.
 *
 * @module
 */

import type { Denoised, Denoiser, Query } from "../../diffusion/denoiser.ts";
import { InputError } from "../../errors.ts";
import * as e from "../../gpu/expression.ts";
import { map } from "../../gpu/ops/map.ts";
import { stopGradient } from "../../gpu/ops/view.ts";
import type { Tensor } from "../../gpu/tensor.ts";

/**
 * The estimates of x_0 and ε once `gradient`, of the shape of x_t, is added to the score. It is held
 * fixed for whoever differentiates them: gradients of gradients cost much and change little.
 */
export function addScore(
  estimates: Denoised,
  { alpha, sigma }: Query["level"],
  gradient: Tensor,
): Denoised {
  const g = stopGradient(gradient);
  return {
    ...estimates,
    epsilon: map([estimates.epsilon, g, sigma], (eps, g, s) => e.sub(eps, e.mul(s, g))),
    // Where nothing is left of the image, x_t says nothing of it.
    sample: map(
      [estimates.sample, g, alpha, sigma],
      (x, g, a, s) => e.add(x, e.select(a, e.div(e.mul(e.mul(s, s), g), a), 0)),
    ),
  };
}

/**
 * The denoiser's conditions with further ones.
 *
 * @throws {InputError} If it has one of their names.
 */
export function addConditions(
  { conditions }: Denoiser,
  more: Denoiser["conditions"],
): Denoiser["conditions"] {
  const taken = Object.keys(more).find((name) => conditions[name]);
  if (taken === undefined) return { ...conditions, ...more };
  throw new InputError(
    `Cannot guide twice by the condition ${taken}: give one of the wrappers another name`,
  );
}
