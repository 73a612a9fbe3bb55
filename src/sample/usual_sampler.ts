/**
 * The sampler that a scheduler of diffusers stands for: its class says which, its settings how.
 *
 * @module
 */

import type { MethodOptions } from "./options.ts";
import type { MethodName } from "./solvers/mod.ts";

type Fields = Readonly<Record<string, unknown>>;

/** What a scheduler says about sampling. */
export interface UsualSampler {
  /** Its class. */
  readonly className: string;
  /** The method; `undefined` if there is none that does the same. */
  readonly method?: MethodName;
  /** What its settings say of noise levels. */
  readonly options: MethodOptions;
  /** Settings that say something else than the method does. */
  readonly ignored: readonly string[];
}

/** A method for a class, and at which of its settings that does the same. */
interface Rule {
  readonly method: MethodName | undefined;
  readonly settings?: Fields;
}

const always = (method: MethodName, settings: Fields = {}) => (): Rule => ({ method, settings });

/** Multistep DPM-Solver++, of which order and kind are settings. */
function dpmSolver({ algorithm_type = "dpmsolver++", solver_order = 2 }: Fields): Rule {
  const suffix = algorithm_type === "dpmsolver++"
    ? ""
    : algorithm_type === "sde-dpmsolver++"
    ? "_sde"
    : undefined;
  const stem = ({ 1: "dpmpp_1", 2: "dpmpp_2m", 3: "dpmpp_3m" } as const)[Number(solver_order)];
  if (suffix === undefined || !stem) return { method: undefined };
  const settings = { algorithm_type, solver_order, solver_type: "midpoint" };
  return { method: `${stem}${suffix}`, settings };
}

const rules: Readonly<Record<string, (fields: Fields) => Rule>> = {
  ...{ DDPMScheduler: always("ddpm"), DDPMParallelScheduler: always("ddpm") },
  ...{ GaussianDDPMScheduler: always("ddpm"), UnCLIPScheduler: always("ddpm") },
  ...{ DDIMScheduler: always("ddim"), DDIMParallelScheduler: always("ddim") },
  PNDMScheduler: ({ skip_prk_steps = false }) => ({
    method: skip_prk_steps ? "plms" : "pndm",
    settings: { skip_prk_steps },
  }),
  ...{ EulerDiscreteScheduler: always("euler"), LMSDiscreteScheduler: always("lms") },
  EulerAncestralDiscreteScheduler: always("euler_ancestral"),
  ...{ HeunDiscreteScheduler: always("heun"), KDPM2DiscreteScheduler: always("dpm_2") },
  KDPM2AncestralDiscreteScheduler: always("dpm_2_ancestral"),
  ...{ DPMSolverMultistepScheduler: dpmSolver, EDMDPMSolverMultistepScheduler: dpmSolver },
  DEISMultistepScheduler: always("deis", {
    ...{ algorithm_type: "deis", solver_order: 3, solver_type: "logrho" },
  }),
  UniPCMultistepScheduler: always("unipc", { solver_order: 2, solver_type: "bh2" }),
  ...{ LCMScheduler: always("lcm"), EDMEulerScheduler: always("euler") },
  FlowMatchEulerDiscreteScheduler: always("euler"),
};

/** What settings are where files do not say, and what the methods here do. */
const usual: Fields = {
  ...{ solver_order: 2, lower_order_final: true, euler_at_final: false, predict_x0: true },
  ...{ disable_corrector: [], use_beta_sigmas: false, use_lu_lambdas: false },
  ...{ interpolation_type: "linear", stochastic_sampling: false, lambda_min_clipped: -Infinity },
};

/** Settings that are looked at. */
const settingNames = [...Object.keys(usual), "algorithm_type", "solver_type", "skip_prk_steps"];

/**
 * The sampler of a scheduler.
 *
 * @param scheduler The fields of its file.
 * @returns `undefined` if its class is not told.
 */
export function usualSampler(scheduler: Fields): UsualSampler | undefined {
  const { _class_name: name } = scheduler;
  if (typeof name !== "string") return undefined;
  const className = name.replace(/^Flax/, "");
  const rule = Object.hasOwn(rules, className) ? rules[className](scheduler) : undefined;
  if (!rule?.method) return { className, options: {}, ignored: [] };
  const expected: Fields = { ...usual, ...rule.settings };
  const ignored = settingNames.filter((field) =>
    scheduler[field] !== undefined && scheduler[field] !== null &&
    JSON.stringify(scheduler[field]) !== JSON.stringify(expected[field])
  );
  const { use_karras_sigmas: karras, use_exponential_sigmas: exponential } = scheduler;
  const sigmas = karras === true ? "karras" : exponential === true ? "exponential" : undefined;
  return { className, method: rule.method, options: sigmas ? { sigmas } : {}, ignored };
}
