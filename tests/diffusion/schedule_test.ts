import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { formatSchedule, NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { assertClose } from "../close.ts";

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
  for (
    const beta_schedule of [
      ...["linear", "scaled_linear", "quadratic", "squaredcos_cap_v2", "sigmoid"],
      ...["exponential", "exp", "laplace", "edm"],
    ]
  ) {
    for (const num_train_timesteps of [1, 2, 10, 1000]) {
      const { alphasCumprod } = make({ beta_schedule, num_train_timesteps });
      assertEquals(alphasCumprod.length, num_train_timesteps);
      alphasCumprod.forEach((bar, t) => {
        assert(bar > 0 && bar < (t ? alphasCumprod[t - 1] : 1), `${beta_schedule} ${t}`);
      });
    }
  }
});

Deno.test("the exponential schedule rises from beta_start to its cap", () => {
  const { betas } = make({ beta_schedule: "exponential", beta_start: 1e-3, beta_end: 0.02 });
  for (const t of [0, 1, 10, 19]) assertGolden(betas[t], 1 - Math.exp(-1e-3 * (t + 1)), `${t}`);
  assertGolden(betas[20], 0.02, "capped");
  assertEquals(betas[20], betas[999]);
});

Deno.test("the quadratic schedule is the scaled linear one", () => {
  const fields = { beta_start: 0.00085, beta_end: 0.012 };
  assertEquals(
    make({ ...fields, beta_schedule: "quadratic" }).betas,
    make({ ...fields, beta_schedule: "scaled_linear" }).betas,
  );
});

Deno.test("the schedule of EDM has its noise levels at the timesteps", () => {
  const { sigmas, betas, alphasCumprod } = make({ beta_schedule: "edm" });
  assertAlmostEquals(sigmas[0] / 0.002, 1, 1e-9);
  assertAlmostEquals(sigmas[999] / 80, 1, 1e-9);
  const root = (t: number) => sigmas[t] ** (1 / 7);
  const between = make({ beta_schedule: "edm" }).levelAt(500.25);
  const share = (between.sigma / between.alpha) ** (1 / 7) - root(500);
  assertAlmostEquals(share, (root(501) - root(500)) / 4, 1e-9);
  for (const t of [1, 500, 998]) {
    assertAlmostEquals(root(t + 1) - root(t), root(1) - root(0), 1e-9);
    assertAlmostEquals(alphasCumprod[t] / alphasCumprod[t - 1], 1 - betas[t], 1e-12);
  }
});

Deno.test("a flow goes straight to noise, its times moved by the shift", () => {
  for (const shift of [1, 3, 0.1]) {
    const schedule = make({ beta_schedule: "flow", shift }), { alphasCumprod, betas } = schedule;
    assertEquals([alphasCumprod[999], betas[999], schedule.isZeroSnr], [0, 1, true]);
    for (const t of [0, 1, 499, 499.25, 998, 998.5, 999]) {
      const u = (t + 1) / 1000, time = shift * u / (1 + (shift - 1) * u);
      const level = schedule.levelAt(t), norm = level.alpha + level.sigma;
      assertAlmostEquals(level.sigma / norm, time, 1e-9, `${shift} ${t}`);
      assertAlmostEquals(level.alpha ** 2 + level.sigma ** 2, 1, 1e-12);
      assertAlmostEquals(level.time, 1000 * time, 1e-6);
      const found = schedule.levelOf(level.sigma / level.alpha);
      assertAlmostEquals(found.time, level.time, 1e-6);
    }
    for (const t of [1, 500, 998]) {
      assertAlmostEquals(alphasCumprod[t] / alphasCumprod[t - 1], 1 - betas[t], 1e-12);
    }
    assertEquals(schedule.levelAt(-1), { time: -1, alpha: 1, sigma: 0 });
  }
});

Deno.test("networks that predict flows are told the time of the flow, whatever the schedule", () => {
  const schedule = make({ beta_schedule: "linear", prediction_type: "flow_prediction" });
  const { time, alpha, sigma } = schedule.levelAt(300);
  assertAlmostEquals(time, 1000 * sigma / (alpha + sigma), 1e-9);
});

Deno.test("explicit betas are taken as they are, and say how many there are", () => {
  const schedule = make({ trained_betas: [0.1, 0.2, 0.5], beta_schedule: "sigmoid" });
  assertClose(schedule.betas, [0.1, 0.2, 0.5], 1e-7);
  assertClose(schedule.alphasCumprod, [0.9, 0.72, 0.36], 1e-7);
  assertEquals(schedule.config.numTrainTimesteps, 3);
});

Deno.test("a schedule rescaled to zero terminal SNR starts where it did and ends in noise", () => {
  const fields = { beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 };
  const before = make(fields);
  const after = make({ ...fields, rescale_betas_zero_snr: true, prediction_type: "sample" });
  assertAlmostEquals(after.alphasCumprod[0], before.alphasCumprod[0], 1e-6);
  assertEquals([after.alphasCumprod[999], after.betas[999]], [0, 1]);
  assertEquals([after.isZeroSnr, before.isZeroSnr], [true, false]);
  assertEquals(after.levelAt(999), { time: 999, alpha: 0, sigma: 1 });
  assertEquals(after.levelOf(Infinity), { time: 999, alpha: 0, sigma: 1 });
  // Between them, what is taken from the root of alpha-bar grows as the root itself.
  const roots = [before, after].map((s) => [...s.alphasCumprod].map(Math.sqrt));
  const [first, last] = [roots[0][0], roots[0][999]];
  for (const t of [1, 300, 800]) {
    const expected = (roots[0][t] - last) * first / (first - last);
    assertAlmostEquals(roots[1][t] / expected, 1, 1e-4, `${t}`);
  }
});

Deno.test("levels lie between those of timesteps, and are found by their noise", () => {
  const schedule = make(), { sigmas } = schedule;
  for (const t of [0, 1, 500, 999]) {
    const { time, alpha, sigma } = schedule.levelAt(t);
    assertEquals(time, t);
    assertAlmostEquals(alpha ** 2 + sigma ** 2, 1, 1e-12);
    assertAlmostEquals(alpha ** 2, schedule.alphasCumprod[t], 1e-12);
    assertAlmostEquals(schedule.timestepOf(sigmas[t]), t, 1e-6);
    const found = schedule.levelOf(sigmas[t]);
    assertAlmostEquals(found.alpha, alpha, 1e-12);
    assertAlmostEquals(found.time, t, 1e-6);
  }
  const { alpha, sigma } = schedule.levelAt(500.25);
  assertAlmostEquals(sigma / alpha, 0.75 * sigmas[500] + 0.25 * sigmas[501], 1e-12);
  const middle = Math.sqrt(sigmas[500] * sigmas[501]);
  assertAlmostEquals(schedule.timestepOf(middle), 500.5, 1e-9);
  assertEquals([schedule.timestepOf(0), schedule.timestepOf(1e9)], [0, 999]);
  assertEquals(schedule.levelOf(0), { time: 0, alpha: 1, sigma: 0 });
  assertEquals(schedule.levelAt(-20), { time: -20, alpha: 1, sigma: 0 });
  assertThrows(() => schedule.levelAt(1000), RangeError);
  assertThrows(() => schedule.levelAt(999.5), RangeError);
});

Deno.test("networks that predict as EDM's are told a quarter of the logarithm of the noise", () => {
  const schedule = make({ beta_schedule: "edm", prediction_type: "edm" });
  assertAlmostEquals(schedule.levelOf(3).time, Math.log(3) / 4, 1e-12);
  assertAlmostEquals(schedule.levelAt(999).time, Math.log(80) / 4, 1e-9);
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

Deno.test("where levels may not be equal, an offset is as large as there is room", () => {
  for (const kind of ["continuous", "noZero"] as const) {
    for (const steps of [1, 3, 9, 10]) {
      const timesteps = make({ num_train_timesteps: 10, steps_offset: 5 }).timesteps(steps, {
        kind,
      });
      assertEquals(new Set(timesteps).size, steps, `${kind} ${timesteps}`);
      assert(timesteps[0] <= 9 && timesteps.at(-1)! >= 0, `${kind} ${timesteps}`);
    }
  }
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

Deno.test("open timesteps leave out 0, fractional ones are not rounded", () => {
  const of = (steps: number, spacing: "leading" | "linspace" | "trailing", more = {}) =>
    make(more).timesteps(steps, { spacing, kind: "noZero" });
  assertEquals(of(4, "linspace"), [999, 749, 500, 250]);
  assertEquals(of(4, "leading"), [800, 600, 400, 200]);
  assertEquals(of(4, "leading", { steps_offset: 1 }), [801, 601, 401, 201]);
  assertEquals(of(4, "trailing"), [999, 749, 499, 249]);
  assertEquals(of(1, "linspace"), [999]);
  for (const spacing of ["leading", "linspace", "trailing"] as const) {
    for (const steps of [1, 2, 3, 499, 500, 700, 998, 999, 1000]) {
      const timesteps = of(steps, spacing);
      assertEquals(new Set(timesteps).size, steps, `${spacing} ${steps}`);
      assert(timesteps[0] <= 999 && timesteps.at(-1)! >= 0);
    }
  }
  const fractional = (spacing: "leading" | "linspace" | "trailing") =>
    make().timesteps(3, { spacing, kind: "continuous" });
  assertEquals(fractional("linspace"), [999, 499.5, 0]);
  assertEquals(fractional("leading"), [666, 333, 0]);
  assertEquals(fractional("trailing"), [999, 666, 332]);
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
    ...{ set_alpha_to_one: false, thresholding: true, sample_max_value: 2 },
    ...{ trained_betas: new Array(100).fill(0.01), final_sigmas_type: "sigma_min" },
    ...{ sigma_schedule: "exponential", shift: 2 },
  });
  const written = formatSchedule(config);
  assertEquals(written.beta_schedule, "sigmoid");
  assertEquals(parseSchedule(JSON.parse(JSON.stringify(written))), config);
});

for (
  const json of [
    { beta_schedule: "edm", prediction_type: "edm" },
    { prediction_type: "flow_prediction", shift: 3 },
    { beta_schedule: "flow", prediction_type: "v_prediction", shift: 3 },
    { beta_schedule: "linear", prediction_type: "flow_prediction" },
    { _class_name: "EDMEulerScheduler", sigma_schedule: "exponential" },
    { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 },
    { _class_name: "PNDMScheduler", skip_prk_steps: true },
  ]
) {
  Deno.test(`the schedule ${JSON.stringify(json)} survives being written and read`, () => {
    const config = parseSchedule(json);
    assertEquals(parseSchedule(JSON.parse(JSON.stringify(formatSchedule(config)))), config);
  });
}

/** Fields of a schedule that is refused, and what the message has to mention. */
const refusals: readonly [unknown, string][] = [
  [null, "noise schedule"],
  [[], "noise schedule"],
  [{ num_train_timesteps: 0 }, "num_train_timesteps"],
  [{ num_train_timesteps: 1e9 }, "num_train_timesteps"],
  [{ beta_start: 0 }, "beta_start"],
  [{ beta_end: 1 }, "beta_end"],
  [{ beta_end: "0.02" }, "beta_end"],
  [{ beta_schedule: "cubic" }, "beta_schedule"],
  [{ prediction_type: "noise" }, "prediction_type"],
  [{ variance_type: "learned" }, "variance_type"],
  [{ timestep_spacing: "random" }, "timestep_spacing"],
  [{ clip_sample_range: 0 }, "clip_sample_range"],
  [{ steps_offset: -1 }, "steps_offset"],
  [{ trained_betas: [0.1, 1] }, "trained_betas.1"],
  [{ trained_betas: [0.1], num_train_timesteps: 2 }, "1 trained_betas for 2"],
  [{ rescale_betas_zero_snr: true }, "epsilon says nothing at the last timestep; v_prediction"],
  [{ rescale_betas_zero_snr: true, prediction_type: "edm" }, "prediction_type of edm"],
  [{ sample_max_value: 0.5 }, "sample_max_value"],
  [{ dynamic_thresholding_ratio: 2 }, "dynamic_thresholding_ratio"],
  [{ sigma_min: 100 }, "sigma_min 100 is not below sigma_max 80"],
  [{ final_sigmas_type: "one" }, "final_sigmas_type"],
];

for (const [json, why] of refusals) {
  Deno.test(`parseSchedule() refuses ${JSON.stringify(json)}`, () => {
    const { message } = assertThrows(() => parseSchedule(json), InputError, why);
    assert(message.startsWith("Bad noise schedule: ") && !message.includes("\n"), message);
  });
}
