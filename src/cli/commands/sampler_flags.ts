/**
 * The flags that select and configure a sampler.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { TimestepSpacing } from "../../diffusion/schedule.ts";
import type { MethodOptions, SigmaSpacing } from "../../sample/options.ts";
import type { Solver } from "../../sample/solver.ts";
import { defaultMethod, type MethodName, methods } from "../../sample/solvers/mod.ts";
import { usualSampler } from "../../sample/usual_sampler.ts";
import type { Model } from "../../model/model.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { DEFAULT_STEPS } from "../../sample/timesteps.ts";
import { columns } from "../terminal/progress.ts";

/** Samplers that make images. */
const forward = Object.values(methods).filter((m) => !m.isInverse).map(({ name }) => name);

/** Flags of commands that sample. */
export const samplerFlags = {
  steps: {
    kind: "integer",
    min: 1,
    max: 100_000,
    default: "20, or as --sampler list shows",
    help: "sampling steps",
  },
  sampler: {
    kind: "text",
    choices: [...forward, "list"],
    value: "NAME",
    default: defaultMethod,
    help: "sampling method; of models of diffusers that of their scheduler; list prints all",
  },
  eta: {
    kind: "number",
    min: 0,
    max: 1,
    default: 0,
    help: "stochasticity of ddim: 0 is deterministic, 1 adds as much noise as ddpm",
  },
  churn: {
    kind: "number",
    min: 0,
    default: 0,
    help: "S_churn of heun and edm: noise that is added back in each step",
  },
  spacing: {
    kind: "text",
    choices: ["leading", "linspace", "trailing"],
    value: "NAME",
    help: "timestep spacing",
  },
  sigmas: {
    kind: "text",
    choices: ["karras", "exponential", "polyexponential", "vp"],
    value: "NAME",
    help: "spacing of noise levels, instead of timesteps",
  },
  timesteps: {
    kind: "text",
    value: "T,T,...",
    help: "explicit timesteps, such as 999,800,500,200,0",
  },
} as const satisfies Record<string, Flag>;

/** Sampler options from flags. */
export function readOptions(flags: Flags<typeof samplerFlags>): MethodOptions {
  const { eta, churn, spacing, sigmas, timesteps } = flags;
  return {
    ...(eta === undefined ? {} : { eta }),
    ...(churn === undefined ? {} : { churn }),
    ...(spacing === undefined ? {} : { spacing: spacing as TimestepSpacing }),
    ...(sigmas === undefined ? {} : { sigmas: sigmas as SigmaSpacing }),
    ...(timesteps === undefined ? {} : { timesteps: readTimesteps(timesteps) }),
  };
}

function readTimesteps(text: string): number[] {
  const numbers = text.split(",").map((part) => part.trim() ? Number(part) : NaN);
  if (numbers.every(Number.isFinite)) return numbers;
  throw new InputError(`--timesteps must be numbers with commas, as 999,800,500, not ${text}`);
}

/** The sampler that a model came with. */
export interface ModelSampler {
  /** The class of its scheduler. */
  readonly className: string;
  /** `undefined` if there is none like it. */
  readonly method?: MethodName | undefined;
  readonly options: MethodOptions;
  /** What was chosen, and why. */
  readonly notice: string;
}

/** The sampler that a model of diffusers is used with there; `undefined` for other models. */
export function samplerOfModel({ scheduler }: Model): ModelSampler | undefined {
  const usual = scheduler && usualSampler(scheduler);
  if (!usual) return undefined;
  const { className, method, options, ignored } = usual;
  const how = options.sigmas ? ` with --sigmas ${options.sigmas}` : "";
  const notice = method
    ? `sampler: ${method}${how}, which is ${className} of the model` +
      (ignored.length ? ` but for its ${ignored.join(", ")}` : "")
    : `sampler: ${defaultMethod}, since none is like ${className} of the model`;
  return { className, method, options, notice: `${notice}; --sampler chooses` };
}

/** A table of all samplers. */
export function listMethods(): string {
  const rows = Object.values(methods).filter((m) => !m.isInverse).map((m: Solver) => [
    m.name,
    String(m.order),
    String(m.evaluations),
    String(m.defaults?.steps ?? DEFAULT_STEPS),
    m.isStochastic ? "yes" : m.takes.includes("eta") ? "with eta" : "no",
    m.kind === "integer" ? m.isUneven ? "timesteps" : "even timesteps" : "timesteps, sigmas",
    m.summary,
  ]);
  rows.unshift(["sampler", "order", "evaluations", "steps", "noise", "visits", "description"]);
  return columns(rows, rows[0].length).join("\n");
}

/** Sampler options as metadata of a file. */
export const describeOptions = (options: MethodOptions): Record<string, string | number> =>
  Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name,
      typeof value === "number" ? value : String(value),
    ]),
  );
