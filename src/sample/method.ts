/**
 * The contract of a sampling method. A method is a table of numbers, one row a step, worked out in
 * double precision beforehand, and a step as a function of tensors; one file each.
 *
 * @module
 */

import type { Tensor } from "../gpu/tensor.ts";
import type { Estimates } from "../model/prediction.ts";
import type { NoiseSchedule } from "../model/schedule.ts";

/** Settings of sampling methods; each refuses what it does not know. */
export interface MethodOptions {
  /** Share of the noise that ancestral sampling would add, 0 to 1, for `ddim` only. @default {0} */
  readonly eta?: number;
}

/** What a method wants to know at every step, beside α and σ: columns of equal length by name. */
export interface StepTable {
  /** The timestep at which the network is asked. */
  readonly timesteps: readonly number[];
  readonly columns: Readonly<Record<string, readonly number[]>>;
  /** Whether steps draw noise. */
  readonly isStochastic: boolean;
}

/** A way from noise to images. */
export interface Method {
  readonly name: string;
  /**
   * The numbers of all steps, the noisiest first.
   *
   * @throws {InputError} If there cannot be so many steps, or an option is not for this method.
   */
  plan(schedule: NoiseSchedule, steps: number, options: MethodOptions): StepTable;
  /**
   * One step.
   *
   * @param columns The row of this step, one number each.
   * @param noise Standard normals of the shape of `x`; only asked for by stochastic methods.
   */
  step(
    x: Tensor,
    denoised: Estimates,
    columns: Readonly<Record<string, Tensor>>,
    noise: () => Tensor,
  ): Tensor;
}
