import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { parsePythonJson } from "../../src/config.ts";
import { InputError } from "../../src/errors.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";

/** Every field of every version of diffusers' classes, and the defaults that it has had. */
const classes = parsePythonJson(
  Deno.readTextFileSync(new URL("../fixtures/diffusers-fields.json", import.meta.url)),
) as Record<string, Record<string, unknown[]>>;

/** Classes whose networks or levels are others than this package knows. */
const refused = [
  ...["AmusedScheduler", "BlockRefinementScheduler", "CMStochasticIterativeScheduler"],
  ...["ClassifierFreeGuidanceScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"],
  ...[
    "ConsistencyDecoderScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDPMWuerstchenScheduler",
  ],
  ...["DiscreteDDIMScheduler", "EntropyBoundScheduler", "FlowMapEulerDiscreteScheduler"],
  ...["GlideDDIMScheduler", "GradTTSScheduler", "HeliosDMDScheduler", "HeliosScheduler"],
  ...["IPNDMScheduler", "KarrasVeScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"],
  ...["SCMScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler", "VQDiffusionScheduler"],
  ...["VeSdeScheduler"],
];

for (const [_class_name, fields] of Object.entries(classes)) {
  if (_class_name === "UNet2DModel") continue;
  const defaults = Object.entries(fields).flatMap(([name, values]) =>
    values.map((value) => ({ [name]: value }))
  );
  if (refused.includes(_class_name)) {
    Deno.test(`${_class_name} is refused by name, with those that can be read`, () => {
      const json = Object.assign({ _class_name }, ...defaults);
      const { message } = assertThrows(() => parseSchedule(json), InputError, _class_name);
      assertMatch(
        message,
        /^Bad noise schedule: "\w+" is no scheduler that can be read: those are/,
      );
      for (const name of Object.keys(classes)) {
        if (name === "UNet2DModel") continue;
        assertEquals(message.includes(` ${name}`), !refused.includes(name), name);
      }
    });
    continue;
  }

  Deno.test(`${_class_name} is read with all its fields, each at each of its defaults`, () => {
    const bare = parseSchedule({ _class_name });
    // The first default is today's.
    const all = Object.assign({}, ...defaults.toReversed());
    assertEquals(parseSchedule({ _class_name, ...all, trained_betas: null }), bare);
    for (const field of defaults) parseSchedule({ _class_name, ...field });
    new NoiseSchedule(bare);
  });

  Deno.test(`a field of ${_class_name} is null or missing alike`, () => {
    const bare = parseSchedule({ _class_name });
    for (const name of Object.keys(fields)) {
      assertEquals(parseSchedule({ _class_name, [name]: null }), bare, name);
    }
  });
}

Deno.test("a scheduler that nobody knows is refused", () => {
  for (const _class_name of ["MyScheduler", "", "toString", 5, ["DDPMScheduler"], {}]) {
    assertThrows(
      () => parseSchedule({ _class_name }),
      InputError,
      "is no scheduler that can be read",
    );
  }
  assertEquals(parseSchedule({ _class_name: null }), parseSchedule({}));
  assertEquals(parseSchedule({ _class_name: "FlaxDDIMScheduler" }), parseSchedule({}));
});

Deno.test("a field that nobody knows is refused by name, unless it is null or a note", () => {
  for (const _class_name of ["DDPMScheduler", "EDMEulerScheduler", undefined]) {
    const json = { ...(_class_name ? { _class_name } : {}), beta_strat: 0.1 };
    assertThrows(() => parseSchedule(json), InputError, "beta_strat");
    parseSchedule({ ...json, beta_strat: null, _note: 1 });
  }
});

Deno.test("former names and values of fields are read", () => {
  const old = { timesteps: 500, clip_predicted_image: false, clip_alpha_at_one: false };
  const { numTrainTimesteps, clipSample, setAlphaToOne } = parseSchedule(old);
  assertEquals([numTrainTimesteps, clipSample, setAlphaToOne], [500, false, false]);
  assertEquals(parseSchedule({ timesteps: 500, num_train_timesteps: 20 }).numTrainTimesteps, 20);
  assertEquals(parseSchedule({ predict_epsilon: false }).predictionType, "sample");
  assertEquals(parseSchedule({ predict_epsilon: true }).predictionType, "epsilon");
  const both = { predict_epsilon: false, prediction_type: "v_prediction" };
  assertEquals(parseSchedule(both).predictionType, "v_prediction");
});

Deno.test("what a class takes for granted is heeded, and what its file says more", () => {
  const heun = parseSchedule({ _class_name: "HeunDiscreteScheduler" });
  assertEquals([heun.betaStart, heun.betaEnd, heun.clipSample], [0.00085, 0.012, false]);
  assertEquals(heun.timestepSpacing, "linspace");
  const pndm = parseSchedule({ _class_name: "PNDMScheduler", clip_sample: true });
  assertEquals([pndm.setAlphaToOne, pndm.clipSample], [false, true]);
  assertEquals(parseSchedule({ _class_name: "LCMScheduler" }).betaSchedule, "scaled_linear");
  assertEquals(parseSchedule({ _class_name: "UnCLIPScheduler" }).betaSchedule, "squaredcos_cap_v2");
  assertEquals(parseSchedule({}).clipSample, true);
});

Deno.test("settings of diffusers' solvers say nothing of the network", () => {
  const _class_name = "DPMSolverMultistepScheduler";
  const settings = {
    ...{ solver_order: 3, algorithm_type: "sde-dpmsolver++", solver_type: "heun" },
    ...{ use_karras_sigmas: true, lambda_min_clipped: -Infinity, euler_at_final: true },
    ...{ lower_order_final: false, use_lu_lambdas: true },
  };
  assertEquals(parseSchedule({ _class_name, ...settings }), parseSchedule({ _class_name }));
});

Deno.test("EDM's schedulers are read as networks that predict as EDM's", () => {
  for (const _class_name of ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"]) {
    const levels = { sigma_min: 0.01, sigma_max: 50, sigma_data: 1, rho: 5 };
    const config = parseSchedule({ _class_name, ...levels, prediction_type: "epsilon" });
    assertEquals([config.betaSchedule, config.predictionType], ["edm", "edm"]);
    assertEquals([config.sigmaMin, config.sigmaMax, config.sigmaData], [0.01, 50, 1]);
    assertEquals([config.rho, config.sigmaSchedule, config.clipSample], [5, "karras", false]);
    const { sigmas } = new NoiseSchedule(
      parseSchedule({ _class_name, ...levels, sigma_schedule: "exponential" }),
    );
    const ratio = (50 / 0.01) ** (1 / 999);
    for (const t of [0, 1, 500, 999]) assert(Math.abs(sigmas[t] / (0.01 * ratio ** t) - 1) < 1e-9);
  }
});

Deno.test("schedulers of flows are read as networks that predict flows", () => {
  const shifted = { beta_schedule: "flow", prediction_type: "flow_prediction", shift: 3 };
  for (
    const json of [
      { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 },
      {
        _class_name: "FlowMatchHeunDiscreteScheduler",
        shift: 3,
        prediction_type: "flow_prediction",
      },
      {
        ...{ _class_name: "DPMSolverMultistepScheduler", use_flow_sigmas: true, flow_shift: 3 },
        ...{ prediction_type: "flow_prediction", beta_schedule: "linear", shift: 7 },
      },
      { ...shifted, clip_sample: false },
      { prediction_type: "flow_prediction", shift: 3, clip_sample: false },
      { beta_schedule: "flow", shift: 3, clip_sample: false },
    ]
  ) {
    const config = parseSchedule(json);
    assertEquals(config, parseSchedule({ ...shifted, clip_sample: false }));
    assertEquals(config.timestepSpacing, "linspace");
  }
  const linear = parseSchedule({ prediction_type: "flow_prediction", beta_schedule: "linear" });
  assertEquals(linear.betaSchedule, "linear");
});

/** Files of diffusers that are refused, and what the message has to say. */
const refusals: readonly (readonly [object, string])[] = [
  [{ _class_name: "EDMEulerScheduler", prediction_type: "v_prediction" }, "epsilon is right"],
  [
    { _class_name: "FlowMatchEulerDiscreteScheduler", prediction_type: "epsilon" },
    "flow_prediction is right",
  ],
  [
    { _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true },
    "use_dynamic_shifting true of FlowMatchEulerDiscreteScheduler is not supported",
  ],
  [{ _class_name: "FlowMatchEulerDiscreteScheduler", invert_sigmas: true }, "invert_sigmas true"],
  [{ _class_name: "FlowMatchEulerDiscreteScheduler", shift_terminal: 0.02 }, "shift_terminal 0.02"],
  [{ _class_name: "FlowMatchLCMScheduler", scale_factors: [1, 2] }, "scale_factors [1,2]"],
  [
    { _class_name: "EulerDiscreteScheduler", timestep_type: "continuous" },
    'timestep_type "continuous" of EulerDiscreteScheduler is not supported',
  ],
  [{ _class_name: "UniPCMultistepScheduler", use_flow_sigmas: true }, "use_flow_sigmas true"],
  [
    {
      ...{ _class_name: "UniPCMultistepScheduler", use_flow_sigmas: false },
      prediction_type: "flow_prediction",
    },
    "use_flow_sigmas false",
  ],
  [{ _class_name: "LCMScheduler", timestep_scaling: 5 }, "timestep_scaling 5"],
  [{ _class_name: "DDPMScheduler", variance_type: "learned" }, "variance_type"],
  [
    { beta_schedule: "flow", prediction_type: "epsilon" },
    "v_prediction, sample and flow_prediction",
  ],
  [{ beta_schedule: "flow", num_train_timesteps: 1 }, "flow needs at least 2 num_train_timesteps"],
  [{ beta_schedule: "flow", shift: 0 }, "shift"],
];

for (const [json, why] of refusals) {
  Deno.test(`${JSON.stringify(json)} is refused by name`, () => {
    const { message } = assertThrows(() => parseSchedule(json), InputError);
    assertStringIncludes(message, why);
    assert(message.startsWith("Bad noise schedule: ") && !message.includes("\n"), message);
  });
}
