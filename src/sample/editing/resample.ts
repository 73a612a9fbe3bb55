/**
 * RePaint's resampling (Lugmayr et al. 2022, section 4.2): sampling goes back up some noise levels
 * and down again, so that what is made gets into harmony with what is known.
 *
 * @module
 */

import type { NoiseSchedule } from "../../diffusion/schedule.ts";
import { InputError } from "../../errors.ts";
import type { MethodOptions } from "../options.ts";
import { combine, type Evaluation, type Solver, type Step, type UpdateTable } from "../solver.ts";

/** How often sampling goes back. */
export interface Resampling {
  /** Steps that are gone back at a time, j of the paper. @default {5} */
  readonly jump?: number;
  /** How often each stretch is walked, r of the paper. @default {5} */
  readonly times?: number;
}

/** Independent normals in a table, beside `noise`, that nothing scales. */
export const JUMP_NOISE = "jump";

/**
 * The steps in stretches, each from a noise level down; after all but the last, sampling goes up to
 * where the next one begins. As RePaint's schedule has it: n steps with a jump of j, r times each, are
 * n + (r - 1) j ⌈(n - j) / j⌉ steps.
 */
export function stretches(steps: number, { jump = 5, times = 5 }: Resampling): [number, number][] {
  for (const [name, value] of Object.entries({ jump, times })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new InputError(`Cannot resample with ${name} ${value}: give a whole number from 1 on`);
  }
  const left = new Map<number, number>();
  for (let t = 0; t < steps - jump; t += jump) left.set(t, times - 1);
  const parts: [number, number][] = [];
  let from = 0;
  for (let done = 1; done <= steps; done++) {
    const t = steps - 1 - done, more = left.get(t) ?? 0;
    if (!more) continue;
    left.set(t, more - 1);
    parts.push([from, done]);
    done -= jump;
    from = done;
  }
  return [...parts, [from, steps]];
}

/** The evaluations of a solver with resampling. */
export function resampled(
  solver: Solver,
  steps: readonly Step[],
  schedule: NoiseSchedule,
  options: MethodOptions,
  resampling: Resampling,
): UpdateTable {
  const parts = stretches(steps.length, resampling);
  return parts.flatMap(([from, to], i) => {
    const table = solver.plan(steps.slice(from, to), schedule, options);
    const next = parts[i + 1]?.[0];
    if (next === undefined) return table;
    const last = table[table.length - 1];
    return [...table.slice(0, -1), goUp(last, steps[to - 1].to, steps[next].from)];
  });
}

/** The evaluation, and then noise from where it leads up to another level. */
function goUp(
  evaluation: Evaluation,
  { alpha, sigma }: Step["to"],
  up: Step["from"],
): Evaluation {
  const ratio = up.alpha / alpha, rest = up.sigma ** 2 - (ratio * sigma) ** 2;
  const noise = { [JUMP_NOISE]: Math.sqrt(Math.max(0, rest)) };
  const x = combine([ratio, evaluation.next.x], [1, noise]);
  return { ...evaluation, next: { ...evaluation.next, x } };
}
