import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import { ddim } from "../../../src/sample/solvers/ddim.ts";
import { ddpm } from "../../../src/sample/solvers/ddpm.ts";
import type { MethodOptions } from "../../../src/sample/options.ts";
import type { Solver } from "../../../src/sample/solver.ts";
import { makeUpdateTable } from "../../../src/sample/timesteps.ts";
import { assertClose } from "../../close.ts";
import { sampleByOracle, target } from "../oracle.ts";

const scheduleOf = (fields: Record<string, unknown> = {}) =>
  new NoiseSchedule(parseSchedule(fields));
/** Columns of weights, a row a step. */
const planBy = (method: Solver, steps: number, options: MethodOptions, fields = {}) => {
  const rows = makeUpdateTable(method, scheduleOf(fields), steps, options);
  const column = (name: string) => rows.map(({ next }) => next.x[name]);
  const columns = { sample: column("sample"), epsilon: column("epsilon"), x: column("x") };
  return {
    timesteps: rows.map(({ at }) => at.time),
    columns: { ...columns, noise: column("noise") },
  };
};
const plan = (steps: number, eta: number, fields: Record<string, unknown> = {}) =>
  planBy(ddim, steps, { eta }, fields);

Deno.test("ddim with all steps and eta 1 is ddpm with the smaller variance", () => {
  const schedule = scheduleOf(), ancestral = planBy(ddpm, 1000, {});
  const { timesteps, columns } = plan(1000, 1);
  assertEquals(timesteps, ancestral.timesteps);
  timesteps.forEach((t, i) => {
    // ddim is told of eps = (x - a x_0) / s, ddpm of x and x_0.
    const bar = schedule.alphaCumprod(t), x = columns.epsilon[i] / Math.sqrt(1 - bar);
    const sample = columns.sample[i] - x * Math.sqrt(bar);
    // The differences of 32-bit alphas that both are made of have about four digits.
    assertAlmostEquals(x, ancestral.columns.x[i], 1e-3, `x at ${t}`);
    assertAlmostEquals(sample, ancestral.columns.sample[i], 1e-3, `x_0 at ${t}`);
    assertAlmostEquals(columns.noise[i], ancestral.columns.noise[i], 1e-4, `noise at ${t}`);
  });
});

Deno.test("ddim with eta 0 draws no noise, and keeps the variance of the schedule", () => {
  assert(plan(50, 0).columns.noise.every((x) => x === 0));
  assertEquals(planBy(ddim, 50, {}), plan(50, 0), "eta is 0 if it is not given");
  assert(plan(50, 0.1).columns.noise.slice(0, -1).every((x) => x > 0));
  const schedule = scheduleOf();
  for (const eta of [0, 0.3, 1]) {
    const { timesteps, columns } = plan(50, eta);
    timesteps.forEach((t, i) => {
      const previous = schedule.alphaCumprod(schedule.previousTimestep(t, 50));
      assertAlmostEquals(columns.sample[i] ** 2, previous, 1e-12);
      assertAlmostEquals(columns.epsilon[i] ** 2 + columns.noise[i] ** 2, 1 - previous, 1e-12);
    });
  }
});

Deno.test("eta scales ddim's noise", () => {
  const [half, full] = [0.5, 1].map((eta) => plan(50, eta).columns.noise);
  assertClose(half, full.map((x) => x / 2), 1e-12);
  assertEquals(full.at(-1), 0, "the last step adds none");
});

Deno.test("ddim ends at the image, or at the first timestep if the schedule says so", () => {
  assertEquals(plan(50, 0).columns.sample.at(-1), 1);
  const { columns } = plan(50, 0, { set_alpha_to_one: false });
  assertAlmostEquals(columns.sample.at(-1)!, Math.sqrt(0.9999), 1e-7);
  assertAlmostEquals(columns.epsilon.at(-1)!, Math.sqrt(0.0001), 1e-5);
});

for (const steps of [1, 2, 7, 50, 333, 1000]) {
  Deno.test(`ddim finds the image that the network knows in ${steps} steps`, () => {
    for (const eta of [0, 0.5, 1]) {
      assertClose(sampleByOracle(parseSchedule({}), ddim, steps, { eta }), target, 1e-4, `${eta}`);
    }
    for (
      const fields of [
        { prediction_type: "sample" },
        { prediction_type: "v_prediction" },
        { timestep_spacing: "linspace" },
        // As in diffusers, a stride that is no integer may end these before the image.
        { timestep_spacing: 1000 % steps ? "leading" : "trailing" },
        { beta_schedule: "squaredcos_cap_v2", clip_sample: false },
      ]
    ) {
      const found = sampleByOracle(parseSchedule(fields), ddim, steps);
      assertClose(found, target, 1e-4, JSON.stringify(fields));
    }
  });
}

Deno.test("ddim refuses shares of noise and numbers of steps that there are not", () => {
  for (const eta of [-0.1, 1.1, NaN, Infinity]) {
    assertThrows(() => plan(50, eta), InputError, `eta ${eta}: it must lie between 0 and 1`);
  }
  for (const steps of [0, 1001, 1.5]) assertThrows(() => plan(steps, 0), InputError, `${steps}`);
});
