import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { formatSchedule, NoiseSchedule, parseSchedule } from "../../src/model/schedule.ts";

const make = (fields: Record<string, unknown> = {}) => new NoiseSchedule(parseSchedule(fields));

/** Asserts that a number has the digits of a golden one, as far as 32-bit floats have them. */
function assertGolden(actual: number, expected: number, what: string): void {
  assertAlmostEquals(actual / expected, 1, 1e-5, what);
}

/** A schedule, and values of its tables at timesteps, worked out in double precision. */
const golden: readonly [string, Record<string, unknown>, {
  readonly bars: Readonly<Record<number, number>>;
  readonly betas?: Readonly<Record<number, number>>;
}][] = [
  ["the DDPM paper", {}, {
    bars: { 0: 0.9999, 1: 0.999780092, 499: 0.0785872429, 980: 5.90375137e-5, 999: 4.03582977e-5 },
    betas: { 0: 1e-4, 999: 0.02 },
  }],
  ["Stable Diffusion", { beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 }, {
    bars: { 0: 0.99915, 499: 0.27766965, 999: 0.00466009851 },
    betas: { 500: 0.00481495414 },
  }],
  ["the cosine schedule", { beta_schedule: "squaredcos_cap_v2" }, {
    bars: { 0: 0.999958716, 499: 0.49384359, 999: 2.42876691e-9 },
    betas: { 0: 4.12842248e-5, 499: 0.00314588623, 998: 0.749999393, 999: 0.999 },
  }],
];

for (const [name, fields, { bars, betas = {} }] of golden) {
  Deno.test(`NoiseSchedule has the numbers of ${name}`, () => {
    const schedule = make(fields);
    assertEquals([schedule.betas.length, schedule.alphasCumprod.length], [1000, 1000]);
    for (const [t, bar] of Object.entries(bars)) {
      // The last cosine alpha is a thousandth, which 32-bit betas know to 5 digits less.
      const digits = bar < 1e-8 ? 1e-4 : 1e-5;
      assertAlmostEquals(schedule.alphasCumprod[Number(t)] / bar, 1, digits, `bar ${t}`);
    }
    for (const [t, beta] of Object.entries(betas)) {
      assertGolden(schedule.betas[Number(t)], beta, `beta ${t}`);
    }
  });
}

Deno.test("every schedule takes some of the image away at every step, and leaves some", () => {
  for (const beta_schedule of ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]) {
    for (const num_train_timesteps of [1, 2, 10, 1000]) {
      const { alphasCumprod } = make({ beta_schedule, num_train_timesteps });
      assertEquals(alphasCumprod.length, num_train_timesteps);
      alphasCumprod.forEach((bar, t) => {
        assert(bar > 0 && bar < (t ? alphasCumprod[t - 1] : 1), `${beta_schedule} ${t}`);
      });
    }
  }
});

Deno.test("alphaCumprod() is 1 before the first step, and refuses steps after the last", () => {
  const schedule = make();
  assertEquals(schedule.alphaCumprod(-1), 1);
  assertEquals(schedule.alphaCumprod(-20), 1);
  assertEquals(schedule.alphaCumprod(999), schedule.alphasCumprod[999]);
  for (const t of [1000, 0.5, NaN]) {
    assertThrows(() => schedule.alphaCumprod(t), RangeError, "0 to 999");
  }
});

Deno.test("leading timesteps are the multiples of the stride", () => {
  const fifty = Array.from({ length: 50 }, (_, i) => 980 - 20 * i);
  assertEquals(make().timesteps(50), fifty);
  assertEquals(make({ steps_offset: 1 }).timesteps(50), fifty.map((t) => t + 1));
  assertEquals(make().timesteps(1), [0]);
  assertEquals(make().timesteps(3), [666, 333, 0]);
  assertEquals(
    make().timesteps(600).slice(0, 2),
    [599, 598],
    "as diffusers: the noisiest are left out",
  );
});

Deno.test("an offset does not lead beyond the last timestep", () => {
  assertEquals(make({ num_train_timesteps: 4, steps_offset: 1 }).timesteps(4), [3, 3, 2, 1]);
});

Deno.test("linspace timesteps reach both ends", () => {
  const schedule = make({ timestep_spacing: "linspace" });
  assertEquals(schedule.timesteps(2), [999, 0]);
  assertEquals(schedule.timesteps(4), [999, 666, 333, 0]);
  assertEquals(schedule.timesteps(1), [0]);
});

Deno.test("trailing timesteps start at the last", () => {
  const schedule = make({ timestep_spacing: "trailing" });
  assertEquals(schedule.timesteps(1), [999]);
  assertEquals(schedule.timesteps(4), [999, 749, 499, 249]);
  assertEquals(schedule.timesteps(3), [999, 666, 332]);
});

Deno.test("as many steps as there are timesteps visit all of them, however they are spaced", () => {
  const all = Array.from({ length: 1000 }, (_, i) => 999 - i);
  for (const timestep_spacing of ["leading", "linspace", "trailing"]) {
    assertEquals(make({ timestep_spacing }).timesteps(1000), all);
  }
});

Deno.test("timesteps() refuses numbers of steps that there are not", () => {
  for (const steps of [0, -1, 1001, 2.5, NaN, Infinity]) {
    assertThrows(() => make().timesteps(steps), InputError, `${steps} steps: this model allows 1`);
  }
  assertThrows(() => make({ num_train_timesteps: 10 }).timesteps(50), InputError, "1 to 10");
});

Deno.test("a step goes a stride down, and the last one below zero", () => {
  const schedule = make();
  assertEquals(schedule.timesteps(50).map((t) => schedule.previousTimestep(t, 50)).slice(-2), [
    0,
    -20,
  ]);
  assertEquals(schedule.previousTimestep(999, 1000), 998);
});

Deno.test("a schedule survives being written and read", () => {
  const config = parseSchedule({
    ...{ num_train_timesteps: 100, beta_start: 0.001, beta_end: 0.1, steps_offset: 1 },
    ...{ beta_schedule: "sigmoid", prediction_type: "v_prediction", clip_sample: false },
    ...{ clip_sample_range: 2, variance_type: "fixed_large", timestep_spacing: "trailing" },
    set_alpha_to_one: false,
  });
  const written = formatSchedule(config);
  assertEquals(written.beta_schedule, "sigmoid");
  assertEquals(parseSchedule(JSON.parse(JSON.stringify(written))), config);
});

Deno.test("parseSchedule() ignores fields of other schedulers", () => {
  assertEquals(
    parseSchedule({ _class_name: "PNDMScheduler", skip_prk_steps: true }),
    parseSchedule({}),
  );
});

/** Fields of a schedule that is refused, and what the message has to mention. */
const refusals: readonly [unknown, string][] = [
  [null, "noise schedule"],
  [[], "noise schedule"],
  [{ num_train_timesteps: 0 }, "num_train_timesteps"],
  [{ num_train_timesteps: 1e9 }, "num_train_timesteps"],
  [{ beta_start: 0 }, "beta_start"],
  [{ beta_end: 1 }, "beta_end"],
  [{ beta_end: "0.02" }, "beta_end"],
  [{ beta_schedule: "quadratic" }, "beta_schedule"],
  [{ prediction_type: "noise" }, "prediction_type"],
  [{ variance_type: "learned_range" }, "variance_type"],
  [{ timestep_spacing: "random" }, "timestep_spacing"],
  [{ clip_sample_range: 0 }, "clip_sample_range"],
  [{ steps_offset: -1 }, "steps_offset"],
  [{ trained_betas: [0.1] }, "explicit betas are not supported"],
  [{ thresholding: true }, "dynamic thresholding is not supported"],
  [{ rescale_betas_zero_snr: true }, "rescale_betas_zero_snr: is not supported"],
];

for (const [json, why] of refusals) {
  Deno.test(`parseSchedule() refuses ${JSON.stringify(json)}`, () => {
    const { message } = assertThrows(() => parseSchedule(json), InputError, why);
    assert(message.startsWith("Bad noise schedule: ") && !message.includes("\n"), message);
  });
}
