/**
 * DDIM (Song, Meng and Ermon 2021, equation 12): x_s = √ᾱ_s x_0 + √(1 - ᾱ_s - σ²) ε + σ noise, with
 * σ = η √((1 - ᾱ_s) / (1 - ᾱ_t) · (1 - ᾱ_t / ᾱ_s)).
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { map } from "../gpu/ops/map.ts";
import { InputError } from "../errors.ts";
import type { NoiseSchedule } from "../model/schedule.ts";
import type { Method, MethodOptions, StepTable } from "./method.ts";

/** The deterministic method of DDIM, or with `eta` above 0 anything up to ancestral sampling. */
export const ddim: Method = {
  name: "ddim",
  plan(schedule: NoiseSchedule, steps: number, { eta = 0 }: MethodOptions): StepTable {
    if (!(eta >= 0 && eta <= 1)) {
      throw new InputError(`Cannot sample with eta ${eta}: it must lie between 0 and 1`);
    }
    const timesteps = schedule.timesteps(steps);
    const last = schedule.config.setAlphaToOne ? 1 : schedule.alphaCumprod(0);
    const rows = timesteps.map((t) => {
      const bar = schedule.alphaCumprod(t), s = schedule.previousTimestep(t, steps);
      const previous = s < 0 ? last : schedule.alphaCumprod(s);
      const variance = (1 - previous) / (1 - bar) * (1 - bar / previous);
      const sigma = eta * Math.sqrt(variance);
      return {
        sample: Math.sqrt(previous),
        epsilon: Math.sqrt(Math.max(1 - previous - sigma ** 2, 0)),
        noise: sigma,
      };
    });
    return {
      timesteps,
      columns: {
        sample: rows.map((r) => r.sample),
        epsilon: rows.map((r) => r.epsilon),
        noise: rows.map((r) => r.noise),
      },
      isStochastic: eta > 0,
    };
  },
  step(_, { sample, epsilon }, c, noise) {
    const mean = map(
      [sample, epsilon, c.sample, c.epsilon],
      (sample, epsilon, cs, ce) => e.add(e.mul(cs, sample), e.mul(ce, epsilon)),
    );
    return c.noise ? map([mean, noise(), c.noise], (m, n, cn) => e.add(m, e.mul(cn, n))) : mean;
  },
};
