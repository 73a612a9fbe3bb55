import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import type { MethodOptions } from "../../src/sample/options.ts";
import type { UpdateTable } from "../../src/sample/solver.ts";
import { methods } from "../../src/sample/solvers/mod.ts";
import { makeUpdateTable } from "../../src/sample/timesteps.ts";

/** Schedules of all kinds, by their names. */
const schedules: Record<string, Record<string, unknown>> = {
  "the DDPM paper's": {},
  "Stable Diffusion's": {
    ...{ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012, steps_offset: 1 },
    set_alpha_to_one: false,
  },
  "a cosine": { beta_schedule: "squaredcos_cap_v2", prediction_type: "v_prediction" },
  "one that ends at sigma_min": { final_sigmas_type: "sigma_min", timestep_spacing: "trailing" },
  "one of zero terminal SNR": { rescale_betas_zero_snr: true, prediction_type: "v_prediction" },
  "one of ten timesteps": { num_train_timesteps: 10, steps_offset: 3 },
  "one of a single timestep": { num_train_timesteps: 1 },
  "EDM's": { _class_name: "EDMEulerScheduler" },
  "EDM's in log σ": { _class_name: "EDMEulerScheduler", sigma_schedule: "exponential" },
  "a flow": { _class_name: "FlowMatchEulerDiscreteScheduler" },
  "a shifted flow": { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 },
};

/** All ways to choose levels. */
const spacings: readonly MethodOptions[] = [
  {},
  ...(["leading", "linspace", "trailing"] as const).map((spacing) => ({ spacing })),
  ...(["karras", "exponential", "polyexponential", "vp"] as const).map((sigmas) => ({ sigmas })),
];

/** Why there may be no plan: the numbers and names that say what would be right. */
const REASONS = new RegExp(
  [
    /^Cannot sample in \d+ steps: this model allows 1 to \d+$/,
    /^Cannot sample by pndm in \d steps: it takes 4 at least$/,
    /^Cannot sample by \w+ over \w+ noise levels: it walks timesteps; they work with \w+/,
    /^Cannot sample by \w+ from a schedule that ends in nothing but noise .*: that works with \w+/,
    /^Cannot sample by \w+ over \w+ noise levels: the schedule has infinite noise at its end$/,
    /^Cannot sample over vp noise levels: they go from \S+ to \S+, but those of the schedule from/,
  ].map(({ source }) => source).join("|"),
);

/** All numbers of a plan but the time, which at no noise is that of no timestep. */
const numbersOf = (plan: UpdateTable) =>
  plan.flatMap(({ at, input = {}, next }) => [
    ...[at.time, at.alpha, at.sigma, ...Object.values(input)],
    ...Object.values(next).flatMap((weights) => Object.values(weights)),
  ]);

for (const [name, fields] of Object.entries(schedules)) {
  const schedule = new NoiseSchedule(parseSchedule(fields));

  Deno.test(`all samplers over ${name} schedule take the steps that they are asked for, or say why not`, () => {
    let planned = 0;
    for (const method of Object.values(methods)) {
      for (const options of spacings) {
        for (const steps of [1, 2, 3, 4, 5, 10, 15, 99, 100, 999, 1000, 1001]) {
          const what = `${method.name} ${JSON.stringify(options)} ${steps}`;
          let plan: UpdateTable;
          try {
            plan = makeUpdateTable(method, schedule, steps, options);
          } catch (error) {
            assert(error instanceof InputError && REASONS.test(error.message), `${what}: ${error}`);
            continue;
          }
          planned++;
          assertEquals(plan.filter(({ endsStep = true }) => endsStep).length, steps, what);
          assert(plan.at(-1)!.endsStep ?? true, what);
          const bad = numbersOf(plan).find((x) => !Number.isFinite(x));
          assertEquals(bad, undefined, what);
        }
      }
    }
    assert(planned >= 40, `${planned} plans`);
  });
}

Deno.test("a hundred steps over the noise levels of Karras ask the network a hundred times", () => {
  const schedule = new NoiseSchedule(parseSchedule({}));
  for (const method of [methods.dpmpp_2m, methods.dpmpp_2m_sde, methods.unipc, methods.euler]) {
    for (const sigmas of ["karras", "exponential"] as const) {
      const levels = makeUpdateTable(method, schedule, 100, { sigmas }).map(({ at }) => at);
      assertEquals(levels.length, 100);
      // Of these, two lie within one timestep of another at the end, where noise hardly changes.
      assert(new Set(levels.map(({ time }) => Math.round(time))).size < 100, method.name);
      levels.forEach(({ sigma }, i) => assert(i === 0 || sigma < levels[i - 1].sigma));
    }
  }
});

Deno.test("the noise levels of a VP process are refused where the network does not know them", () => {
  const sd = new NoiseSchedule(parseSchedule(schedules["Stable Diffusion's"]));
  assertThrows(
    () => makeUpdateTable(methods.euler, sd, 10, { sigmas: "vp" }),
    InputError,
    "they go from 152 to 0.0105, but those of the schedule from 14.6 to 0.0292",
  );
  assertEquals(
    makeUpdateTable(methods.euler, new NoiseSchedule(parseSchedule({})), 10, { sigmas: "vp" })
      .length,
    10,
  );
});
