/**
 * The schedulers of diffusers, all versions of them, in terms of one {@linkcode ScheduleConfig}: which
 * classes can be read, what each takes for granted where its file does not say, and which of its
 * fields say nothing that the network was trained on.
 *
 * @module
 */

import { givenFields } from "../config.ts";
import { InputError } from "../errors.ts";

type Fields = Readonly<Record<string, unknown>>;

/** What a class takes for granted beside the defaults of `DDPMScheduler`. */
const solver = { clip_sample: false, timestep_spacing: "linspace" };
const latentSolver = { ...solver, beta_start: 0.00085, beta_end: 0.012 };
const distilled = {
  ...{ clip_sample: false, beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" },
};
const edm = { clip_sample: false, beta_schedule: "edm" };
const flow = { ...solver, beta_schedule: "flow" };

/** The classes that can be read, by what their files leave out. */
const schedulers: Readonly<Record<string, Fields>> = {
  ...{
    DDPMScheduler: {},
    DDPMParallelScheduler: {},
    RePaintScheduler: {},
    GaussianDDPMScheduler: {},
  },
  ...{ DDIMScheduler: {}, DDIMParallelScheduler: {}, DDIMInverseScheduler: {} },
  PNDMScheduler: { clip_sample: false, set_alpha_to_one: false },
  ...{ EulerDiscreteScheduler: solver, EulerAncestralDiscreteScheduler: solver },
  ...{ LMSDiscreteScheduler: solver, HeunDiscreteScheduler: latentSolver },
  ...{ KDPM2DiscreteScheduler: latentSolver, KDPM2AncestralDiscreteScheduler: latentSolver },
  ...{ DPMSolverMultistepScheduler: solver, DPMSolverMultistepInverseScheduler: solver },
  ...{ DPMSolverSinglestepScheduler: solver, DPMSolverSDEScheduler: latentSolver },
  ...{ DEISMultistepScheduler: solver, UniPCMultistepScheduler: solver, SASolverScheduler: solver },
  ...{ LCMScheduler: distilled, TCDScheduler: distilled },
  UnCLIPScheduler: { beta_schedule: "squaredcos_cap_v2", variance_type: "fixed_small_log" },
  ...{ EDMEulerScheduler: edm, EDMDPMSolverMultistepScheduler: edm },
  ...{ FlowMatchEulerDiscreteScheduler: flow, FlowMatchHeunDiscreteScheduler: flow },
  FlowMatchLCMScheduler: flow,
};

/** Former names of fields. */
const renamed: Readonly<Record<string, string>> = {
  timesteps: "num_train_timesteps",
  ...{ clip_predicted_image: "clip_sample", clip_predicted_sample: "clip_sample" },
  clip_alpha_at_one: "set_alpha_to_one",
};

/**
 * Settings of the solvers of diffusers, and of the kind of arrays they once made. Those of this
 * package are set where they are called.
 */
const solverFields = new Set([
  ...["algorithm_type", "disable_corrector", "eta", "euler_at_final", "interpolation_type"],
  ...["lambda_min_clipped", "lower_order_final", "noise_sampler_seed", "original_inference_steps"],
  ...["predict_x0", "predictor_order", "corrector_order", "set_alpha_to_zero", "skip_prk_steps"],
  ...["solver_order", "solver_p", "solver_type", "stochastic_sampling", "tau_func"],
  ...["tensor_format", "timestep_values", "upscale_mode", "use_beta_sigmas"],
  ...["use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas"],
  // They say how use_dynamic_shifting would shift.
  ...["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"],
]);

/** Fields that are harmless at one value only, and why not at others. */
const fixedFields: Readonly<Record<string, readonly [value: unknown, why: string]>> = {
  use_dynamic_shifting: [false, "only a pipeline knows the shift for images of a size"],
  invert_sigmas: [false, "levels that go from the image to noise cannot be sampled"],
  shift_terminal: [null, "levels that are stretched to end in noise are not supported"],
  timestep_type: ["discrete", "networks that are told the logarithm of the noise are EDM's only"],
  scale_factors: [null, "images that grow on the way are not supported"],
  timestep_scaling: [10, "lcm scales timesteps by 10"],
};

/** Fields that are read beside those of our own files. */
export const foreignScheduleFields: readonly string[] = [
  ...[...Object.keys(renamed), ...solverFields, ...Object.keys(fixedFields)],
  ...["use_flow_sigmas", "flow_shift", "predict_epsilon"],
];

/**
 * Fields of a noise schedule from those of any scheduler of diffusers, or from our own.
 *
 * @throws {InputError} If the class is unknown, or a field says what is not supported.
 */
export function readScheduler(json: Fields): Record<string, unknown> {
  const name = json._class_name ?? "DDPMScheduler";
  const className = String(name).replace(/^Flax/, "");
  if (typeof name !== "string" || !Object.hasOwn(schedulers, className)) {
    throw new InputError(
      `Bad noise schedule: ${JSON.stringify(name)} is no scheduler that can be read: those are ` +
        Object.keys(schedulers).join(", "),
    );
  }
  const given = givenFields(json), fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    const [harmless, why] = fixedFields[key] ?? [value];
    if (value !== harmless && !(harmless === null && !value)) {
      throw unsupported(className, key, value, `${why}; ${harmless} is right`);
    }
    if (key in fixedFields || solverFields.has(key)) continue;
    const present = renamed[key] ?? key;
    if (present === key || !(present in given)) fields[present] = value;
  }
  return withKind(className, fields);
}

const unsupported = (className: string, key: string, value: unknown, why: string) =>
  new InputError(
    `Bad noise schedule: ${key} ${JSON.stringify(value)} of ${className} is not supported: ${why}`,
  );

/** The fields with what the class takes for granted, and what follows from one another. */
function withKind(
  className: string,
  { use_flow_sigmas, flow_shift, predict_epsilon, ...given }: Record<string, unknown>,
): Record<string, unknown> {
  const implied = schedulers[className], { prediction_type: predicted } = given;
  const only = (type: string, ...same: unknown[]) => {
    if (predicted === undefined || predicted === type || same.includes(predicted)) return;
    throw unsupported(className, "prediction_type", predicted, `${same[0] ?? type} is right`);
  };
  if (implied === edm) {
    // v_prediction would be the same network with its sign changed.
    only("edm", "epsilon");
    return { ...edm, ...given, beta_schedule: "edm", prediction_type: "edm" };
  }
  if (implied === flow || use_flow_sigmas === true) {
    only("flow_prediction");
    if (implied !== flow && predicted === undefined) {
      throw unsupported(
        className,
        "use_flow_sigmas",
        true,
        "prediction_type is not flow_prediction",
      );
    }
    const shift = implied === flow ? {} : { shift: flow_shift ?? 1 };
    const kind = { beta_schedule: "flow", prediction_type: "flow_prediction" };
    return { ...flow, ...given, ...shift, ...kind };
  }
  if (use_flow_sigmas === false && predicted === "flow_prediction") {
    throw unsupported(className, "use_flow_sigmas", false, "flow_prediction goes with true");
  }
  const old = predict_epsilon === false ? { prediction_type: "sample" } : {};
  // Of our own files: schedule and prediction go together unless both are given.
  const kind = given.beta_schedule === "flow"
    ? { prediction_type: "flow_prediction", timestep_spacing: "linspace" }
    : predicted === "flow_prediction" && given.beta_schedule === undefined
    ? { beta_schedule: "flow", timestep_spacing: "linspace" }
    : {};
  return { ...implied, ...old, ...kind, ...given };
}
