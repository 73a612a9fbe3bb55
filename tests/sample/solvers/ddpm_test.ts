import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import { ddpm } from "../../../src/sample/solvers/ddpm.ts";
import { makeUpdateTable } from "../../../src/sample/timesteps.ts";
import { assertClose } from "../../close.ts";
import { sampleByOracle, target } from "../oracle.ts";

/** Columns of weights, a row a step. */
const plan = (steps: number, fields: Record<string, unknown> = {}) => {
  const rows = makeUpdateTable(ddpm, new NoiseSchedule(parseSchedule(fields)), steps, {});
  const column = (name: string) => rows.map(({ next }) => next.x[name]);
  return {
    timesteps: rows.map(({ at }) => at.time),
    columns: { sample: column("sample"), x: column("x"), noise: column("noise") },
  };
};

/** The row at which all timesteps are at t. */
const rowOf = (t: number) => 999 - t;

Deno.test("ddpm has the posterior variances of the DDPM paper", () => {
  const { noise } = plan(1000).columns;
  const golden = { 1: 5.45318766e-5, 499: 0.0100313554, 999: 0.0199999835 };
  for (const [t, variance] of Object.entries(golden)) {
    assertAlmostEquals(noise[rowOf(Number(t))] ** 2 / variance, 1, 1e-4, `at ${t}`);
  }
  assertEquals(noise[rowOf(0)], 0, "the last step adds no noise");
});

Deno.test("ddpm has the posterior means of the DDPM paper", () => {
  const { sample, x } = plan(1000).columns;
  assertAlmostEquals(sample[rowOf(500)] / 0.003058057075629619, 1, 1e-5);
  assertAlmostEquals(x[rowOf(500)] / 0.9941043507567255, 1, 1e-5);
  assertAlmostEquals(sample[rowOf(0)], 1, 1e-12);
  assertAlmostEquals(x[rowOf(0)], 0, 1e-12);
});

Deno.test("ddpm's larger variance is the schedule's, and the logarithm changes nothing", () => {
  const { betas } = new NoiseSchedule(parseSchedule({}));
  const { noise: large } = plan(1000, { variance_type: "fixed_large" }).columns;
  const { noise: small } = plan(1000).columns;
  const { noise: log } = plan(1000, { variance_type: "fixed_small_log" }).columns;
  for (let t = 1; t < 1000; t++) {
    // 1 - alpha of a quotient of 32-bit floats, which leaves four digits of the first ones.
    assertAlmostEquals(large[rowOf(t)] ** 2 / betas[t], 1, 2e-3, `at ${t}`);
    assertAlmostEquals(log[rowOf(t)] / small[rowOf(t)], 1, 1e-5, `at ${t}`);
    assert(large[rowOf(t)] > small[rowOf(t)]);
  }
});

Deno.test("ddpm keeps the variance that the schedule says when it leaves out steps", () => {
  const schedule = new NoiseSchedule(parseSchedule({}));
  for (const steps of [2, 10, 50, 1000]) {
    const { timesteps, columns } = plan(steps);
    timesteps.forEach((t, i) => {
      const bar = schedule.alphaCumprod(t);
      const previous = schedule.alphaCumprod(schedule.previousTimestep(t, steps));
      // Of x_t = a x_0 + s eps, the mean of x_s has to hold as much of x_0 as x_s does.
      const kept = columns.sample[i] + columns.x[i] * Math.sqrt(bar);
      const variance = columns.x[i] ** 2 * (1 - bar) + columns.noise[i] ** 2;
      assertAlmostEquals(kept, Math.sqrt(previous), 1e-4);
      assertAlmostEquals(variance, 1 - previous, 1e-4);
    });
  }
});

for (const steps of [1, 2, 7, 50, 333, 1000]) {
  Deno.test(`ddpm finds the image that the network knows in ${steps} steps`, () => {
    for (const prediction_type of ["epsilon", "sample", "v_prediction"]) {
      const config = parseSchedule({ prediction_type });
      assertClose(sampleByOracle(config, ddpm, steps), target, 1e-4, prediction_type);
    }
    // As in diffusers, a stride that is no integer may end trailing steps before the image.
    for (const timestep_spacing of ["linspace", 1000 % steps ? "leading" : "trailing"]) {
      const config = parseSchedule({ timestep_spacing });
      assertClose(sampleByOracle(config, ddpm, steps), target, 1e-4, timestep_spacing);
    }
  });
}

Deno.test("ddpm clips what the network estimates, if the schedule says so", () => {
  const clipped = sampleByOracle(parseSchedule({ clip_sample_range: 0.5 }), ddpm, 20);
  assertClose(clipped, target.map((x) => Math.min(0.5, Math.max(-0.5, x))), 1e-4);
});

Deno.test("ddpm refuses numbers of steps that there are not", () => {
  for (const steps of [0, -5, 1001, 1.5]) assertThrows(() => plan(steps), InputError, `${steps}`);
});
