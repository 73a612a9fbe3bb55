/**
 * Ancestral sampling (Ho et al. 2020, algorithm 2), strided as in Nichol and Dhariwal 2021: every
 * step draws from the Gaussian q(x_s | x_t, x_0) at the estimated x_0.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { map } from "../gpu/ops/map.ts";
import type { NoiseSchedule } from "../model/schedule.ts";
import type { Method, MethodOptions, StepTable } from "./method.ts";

/** The method of the DDPM paper. */
export const ddpm: Method = {
  name: "ddpm",
  plan(schedule: NoiseSchedule, steps: number, { eta }: MethodOptions): StepTable {
    if (eta !== undefined) {
      throw new InputError("Cannot sample by ddpm with an eta: that is ddim's");
    }
    const timesteps = schedule.timesteps(steps);
    // Every operation is rounded as diffusers rounds it: a thousand steps amplify the last bits.
    const f = Math.fround;
    const rows = timesteps.map((t) => {
      const bar = schedule.alphaCumprod(t);
      const previous = schedule.alphaCumprod(schedule.previousTimestep(t, steps));
      const rest = f(1 - bar), previousRest = f(1 - previous);
      // β of the long step, which is the schedule's own where no step is left out.
      const alpha = f(bar / previous), beta = f(1 - alpha);
      const posterior = Math.max(f(f(previousRest / rest) * beta), 1e-20);
      const deviation = {
        fixed_small: () => Math.sqrt(posterior),
        fixed_small_log: () => Math.exp(f(0.5 * f(Math.log(posterior)))),
        fixed_large: () => Math.sqrt(beta),
        fixed_large_log: () => Math.exp(f(0.5 * f(Math.log(beta)))),
        learned_range: () => {
          throw new InputError("Cannot sample by ddpm with a variance of learned_range yet");
        },
      }[schedule.config.varianceType];
      return {
        sample: f(f(f(Math.sqrt(previous)) * beta) / rest),
        x: f(f(f(Math.sqrt(alpha)) * previousRest) / rest),
        noise: t > 0 ? deviation() : 0,
      };
    });
    return {
      timesteps,
      columns: {
        sample: rows.map((r) => r.sample),
        x: rows.map((r) => r.x),
        noise: rows.map((r) => r.noise),
      },
      isStochastic: true,
    };
  },
  step: (x, { sample }, c, noise) =>
    map(
      [x, sample, noise(), c.x, c.sample, c.noise],
      (x, sample, noise, cx, cs, cn) =>
        e.add(e.add(e.mul(cs, sample), e.mul(cx, x)), e.mul(cn, noise)),
    ),
};
