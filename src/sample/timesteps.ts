/**
 * Which noise levels a sampler visits, and whether it can.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { NoiseLevel, NoiseSchedule } from "../diffusion/schedule.ts";
import {
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  vpSigmas,
} from "../diffusion/sigmas.ts";
import { resampled, type Resampling } from "./editing/resample.ts";
import type { MethodOptions, SigmaSpacing } from "./options.ts";
import type { Solver, Step, UpdateTable } from "./solver.ts";
import { methods } from "./solvers/mod.ts";

/** Steps of methods that have no default of their own. */
export const DEFAULT_STEPS = 50;

/** How far beyond the levels of the timesteps others may lie, by rounding. */
const MARGIN = 1 + 1e-6;

/** The default number of steps: the method's own, and T at most. */
export function defaultSteps(method: Solver, { config }: NoiseSchedule): number {
  return Math.min(method.defaults?.steps ?? DEFAULT_STEPS, config.numTrainTimesteps);
}

/**
 * The evaluations of a method.
 *
 * @throws {InputError} If there cannot be so many steps, or if method, schedule and options do not
 * go together.
 */
export function makeUpdateTable(
  method: Solver,
  schedule: NoiseSchedule,
  steps: number | undefined,
  options: MethodOptions & { readonly resample?: Resampling },
): UpdateTable {
  return tableOf(method, schedule, makeSteps(method, schedule, steps, options), options);
}

/** The evaluations of some steps. */
export const tableOf = (
  method: Solver,
  schedule: NoiseSchedule,
  steps: readonly Step[],
  options: MethodOptions & { readonly resample?: Resampling },
): UpdateTable =>
  options.resample
    ? resampled(method, steps, schedule, options, options.resample)
    : method.plan(steps, schedule, options);

/**
 * The steps of a run, from the noisiest level to the image.
 *
 * @throws {InputError} As {@linkcode makeUpdateTable}.
 */
export function makeSteps(
  method: Solver,
  schedule: NoiseSchedule,
  given: number | undefined,
  options: MethodOptions,
): Step[] {
  checkPair(method, schedule, options);
  const { kind, defaults = {} } = method, { config } = schedule;
  const byHand = options.timesteps && checkTimesteps(options.timesteps, method, schedule);
  if (byHand && given !== undefined && given !== byHand.length) {
    throw new InputError(`Cannot sample in ${given} steps: ${byHand.length} timesteps are given`);
  }
  const steps = byHand?.length ?? given ?? defaultSteps(method, schedule);
  const isAutomatic = !options.spacing && !byHand;
  const sigmas = options.sigmas ?? (isAutomatic ? defaults.sigmas : undefined);
  // What every file of an ancestral sampler says is nothing that solvers should heed.
  const said = config.timestepSpacing === "leading" ? defaults.spacing : undefined;
  const spacing = options.spacing ?? said ?? config.timestepSpacing;
  const timesteps = byHand ?? schedule.timesteps(steps, { spacing, kind });
  if (kind === "integer") {
    // Elsewhere steps are even in diffusers, wherever the next one starts.
    const isChained = byHand || config.betaSchedule === "flow";
    const after = (t: number, i: number) =>
      isChained ? timesteps[i + 1] ?? -1 : schedule.previousTimestep(t, steps);
    return timesteps.map((t, i) => ({
      from: schedule.levelAt(t),
      to: schedule.levelAt(after(t, i)),
    }));
  }
  const from = sigmas
    ? sigmaLevels(schedule, sigmas, timesteps, kind)
    : timesteps.map((t) => schedule.levelAt(t));
  const isOpen = kind === "noZero" && config.finalSigmasType === "sigma_min";
  return from.map((level, i) => ({
    from: level,
    to: from[i + 1] ?? schedule.levelAt(isOpen ? 0 : -1),
  }));
}

function sigmaLevels(
  schedule: NoiseSchedule,
  spacing: SigmaSpacing,
  timesteps: readonly number[],
  kind: Solver["kind"],
): NoiseLevel[] {
  const n = timesteps.length, table = schedule.sigmas;
  const ratio = (t: number) => schedule.levelAt(t).sigma / schedule.levelAt(t).alpha;
  const [max, min] = kind === "noZero"
    ? [table[table.length - 1], table[0]]
    : [ratio(timesteps[0]), ratio(timesteps[n - 1])];
  const sigmas = {
    karras: () => karrasSigmas(n, min, max, schedule.config.rho),
    exponential: () => exponentialSigmas(n, min, max),
    polyexponential: () => polyexponentialSigmas(n, min, max),
    vp: () => vpSigmas(n),
  }[spacing]();
  // Others than vp stay between the timesteps. Beyond is noise that the network never saw.
  const least = table[0], most = table[table.length - 1];
  if (!(sigmas[n - 1] >= least / MARGIN && sigmas[0] <= most * MARGIN)) {
    const range = (from: number, to: number) => `${from.toPrecision(3)} to ${to.toPrecision(3)}`;
    throw new InputError(
      `Cannot sample over ${spacing} noise levels: they go from ${
        range(sigmas[0], sigmas[n - 1])
      }` +
        `, but those of the schedule from ${range(most, least)}`,
    );
  }
  return sigmas.map((sigma) => schedule.levelOf(sigma));
}

const namesOf = (has: (method: Solver) => boolean) =>
  Object.values(methods).filter(has).map(({ name }) => name).join(", ");

/** @throws {InputError} If they do not go together; it names what does. */
function checkPair(method: Solver, schedule: NoiseSchedule, options: MethodOptions): void {
  const { name, kind, takes } = method, { sigmas, timesteps, spacing } = options;
  const refuse = (what: string, who: string) => {
    throw new InputError(`Cannot sample by ${name} ${what}: ${who}`);
  };
  for (const option of ["eta", "churn"] as const) {
    if (options[option] !== undefined && !takes.includes(option)) {
      refuse(`with ${option}`, `that is for ${namesOf((m) => m.takes.includes(option))}`);
    }
  }
  const { eta, churn } = options;
  if (eta !== undefined && !(eta >= 0 && eta <= 1)) {
    refuse(`with eta ${eta}`, "it must lie between 0 and 1");
  }
  if (churn !== undefined && !(churn >= 0 && churn < Infinity)) {
    refuse(`with churn ${churn}`, "it must be 0 or more");
  }
  if (schedule.isZeroSnr && !method.takesZeroSnr) {
    refuse(
      "from a schedule that ends in nothing but noise (zero terminal SNR)",
      `that works with ${namesOf((m) => m.takesZeroSnr)}`,
    );
  }
  if (sigmas && kind === "integer") {
    refuse(
      `over ${sigmas} noise levels`,
      `it walks timesteps; they work with ${namesOf((m) => m.kind !== "integer")}`,
    );
  }
  if (sigmas && schedule.isZeroSnr) {
    refuse(`over ${sigmas} noise levels`, "the schedule has infinite noise at its end");
  }
  if (timesteps && !method.isUneven) {
    refuse("by hand", `its steps are even; timesteps work with ${namesOf((m) => m.isUneven)}`);
  }
  if (timesteps && (spacing || sigmas)) refuse("by hand", "then there is no spacing");
}

function checkTimesteps(
  given: readonly number[],
  { name, kind }: Solver,
  { config: { numTrainTimesteps: T } }: NoiseSchedule,
): readonly number[] {
  const isBad = (t: number, i: number) =>
    !(t >= 0 && t <= T - 1) || (i > 0 && t >= given[i - 1]) ||
    (kind !== "continuous" && !Number.isInteger(t));
  const bad = given.find(isBad);
  if (given.length && bad === undefined) return given;
  throw new InputError(
    `Cannot sample by ${name} over timesteps ${given.join(", ")}: they must fall, from ${T - 1} ` +
      `to 0 at most${kind === "continuous" ? "" : ", and be whole"}`,
  );
}
