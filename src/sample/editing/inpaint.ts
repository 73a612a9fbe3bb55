/**
 * Inpainting with a denoiser that was not trained for it: what is known replaces what it sees and what
 * it says (Lugmayr et al., "RePaint", 2022, equation 8).
 *
 * @module
 */

import type { Denoiser, DenoiserWrapper } from "../../diffusion/denoiser.ts";
import * as e from "../../gpu/expression.ts";
import { map } from "../../gpu/ops/map.ts";
import { randomNormal } from "../../gpu/ops/random.ts";
import { constant } from "../../gpu/tensor.ts";
import { START_STREAM } from "../interpolate.ts";
import type { SamplerOptions } from "../options.ts";

/** The stream of random numbers of fresh noise on what is known. */
const STREAM = 40;

/** How a part of every item is kept. */
export interface InpaintOptions {
  /**
   * The noise on what is known: `fresh` at every evaluation, as stochastic samplers and resampling
   * want it; or `fixed`, that of the start, with which the history of a multistep solver of the
   * probability flow makes sense. @default {"fresh"}
   */
  readonly noise?: "fresh" | "fixed";
  /** How standard normals are drawn: as the sampler does it. @default {randomNormal} */
  readonly draw?: NonNullable<SamplerOptions["noise"]>;
}

/**
 * Keeps a part of every item. Where the condition `mask` `[..., 1]` is 0, the denoiser is shown what
 * is known, the condition `known`, with fresh noise of the level, and says that x_0 is that; where it
 * is 1, the denoiser has its say; between, both have a share. With a mask of ones, which is what it is
 * if none is given, nothing changes.
 *
 * @example The lower half of a digit anew
 * ```ts
 * import { fetchModel, inpaint, openDevice, Sampler } from "@x/ddpm";
 *
 * const model = await fetchModel("mnist-unconditional");
 * using device = await openDevice();
 * const options = { method: "ddpm", steps: 10, batchSize: 2, wrap: [inpaint()] } as const;
 * using sampler = await Sampler.create(device, model, options);
 * const { data: known } = await sampler.sample({ seed: 1 });
 * const mask = Float32Array.from({ length: 28 * 28 }, (_, i) => i < 14 * 28 ? 0 : 1);
 * const { data } = await sampler.sample({ count: 2, seed: 2, conditions: { known, mask } });
 * console.log(data[300] === known[300]); // true
 * ```
 */
export const inpaint =
  ({ noise: kind = "fresh", draw = randomNormal }: InpaintOptions = {}): DenoiserWrapper =>
  (denoiser): Denoiser => {
    const { itemShape } = denoiser, sides = itemShape.slice(0, -1);
    const start = constant(new Int32Array(1));
    return {
      ...denoiser,
      conditions: {
        ...denoiser.conditions,
        known: { shape: itemShape, dtype: "f32", default: 0 },
        mask: { shape: [...sides, 1], dtype: "f32", default: 1 },
      },
      estimate(query) {
        const { x, level, random, conditions: { known, mask, ...conditions } } = query;
        const { alpha, sigma } = level;
        const noise = kind === "fresh"
          ? draw(x.shape, random, STREAM, query.conditions)
          : draw(x.shape, { ...random, step: start }, START_STREAM, query.conditions);
        const shown = map([x, known, noise, mask, alpha, sigma], (x, known, z, m, a, s) => {
          const noisy = e.add(e.mul(a, known), e.mul(s, z));
          return e.add(e.mul(e.sub(1, m), noisy), e.mul(m, x));
        });
        const said = denoiser.estimate({ ...query, x: shown, conditions });
        // By the mask, exactly: 0 and 1 leave nothing of the other.
        const mix = (m: e.Expression, kept: e.Expression, made: e.Expression) =>
          e.select(m, e.add(e.mul(e.sub(1, m), kept), e.mul(m, made)), kept);
        return {
          ...said,
          x: shown,
          sample: map([mask, known, said.sample], mix),
          epsilon: map([mask, noise, said.epsilon], mix),
        };
      },
    };
  };
