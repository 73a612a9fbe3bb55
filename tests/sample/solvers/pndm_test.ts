import { assertAlmostEquals, assertEquals } from "@std/assert";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import type { UpdateTable, Weights } from "../../../src/sample/solver.ts";
import { methods } from "../../../src/sample/solvers/mod.ts";
import { makeSteps } from "../../../src/sample/timesteps.ts";

const schedule = new NoiseSchedule(parseSchedule({
  _class_name: "PNDMScheduler",
  ...{ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 },
  ...{ set_alpha_to_one: false, timestep_spacing: "leading", steps_offset: 1 },
}));

/** x before every evaluation, and at the end, where the network always says that x_0 is 0 and ε is 1. */
function walk(table: UpdateTable): number[] {
  let state: Record<string, number> = { x: table[0].at.sigma };
  const sum = (weights: Weights, known: Record<string, number>) =>
    Object.entries(weights).reduce(
      (total, [name, weight]) => total + weight * (known[name] ?? 0),
      0,
    );
  return [
    state.x,
    ...table.map(({ next }) => {
      const known = { ...state, epsilon: 1 };
      const changed = Object.entries(next).map(([name, weights]) => [name, sum(weights, known)]);
      state = { ...state, ...Object.fromEntries(changed) };
      return state.x;
    }),
  ];
}

for (const name of ["pndm", "plms"] as const) {
  for (const skip of [0, 1, 4, 6]) {
    Deno.test(`${name} keeps to its noise levels where it leaves out ${skip} of 10 steps`, () => {
      const steps = makeSteps(methods[name], schedule, 10, {}).slice(skip);
      const table = methods[name].plan(steps, schedule, {}), x = walk(table);
      table.forEach(({ at }, i) => assertAlmostEquals(x[i], at.sigma, 1e-9));
      assertAlmostEquals(x.at(-1)!, schedule.levelAt(0).sigma, 1e-9);
    });
  }
}

Deno.test("plms over a list of timesteps that was cut takes the second one for the repeated one", () => {
  const steps = makeSteps(methods.plms, schedule, 10, {});
  const table = methods.plms.planCut!(steps, schedule, 4), x = walk(table);
  assertEquals(table.map(({ at }) => Math.round(at.time)), [601, 501, 401, 301, 201, 101, 1]);
  assertEquals(table.map(({ endsStep = true }) => endsStep), [false, ...Array(6).fill(true)]);
  const sigma = (t: number) => schedule.levelAt(t).sigma;
  assertAlmostEquals(x[1], sigma(501), 1e-9);
  assertAlmostEquals(x[2], sigma(501), 1e-9);
  assertEquals(methods.plms.planCut!(steps, schedule, 0), methods.plms.plan(steps, schedule, {}));
});
