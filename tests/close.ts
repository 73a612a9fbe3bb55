/**
 * Comparison of arrays that says what is wrong in a line.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import type { ParameterLayout } from "../src/model/parameters.ts";
import { sizeOf } from "../src/shape.ts";

/** Throws if an element is farther off than `tolerance` times the largest expected magnitude. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = "values",
): void {
  if (actual.length !== expected.length) {
    throw new AssertionError(`${what}: ${actual.length} elements instead of ${expected.length}`);
  }
  let worst = 0, at = -1, scale = 1e-6;
  for (let i = 0; i < expected.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i]));
    const d = Math.abs(actual[i] - expected[i]);
    if (!(d <= worst)) [worst, at] = [d, i];
  }
  if (!(worst <= tolerance * scale)) {
    throw new AssertionError(
      `${what}: element ${at} is ${actual[at]} instead of ${expected[at]}, which is ` +
        `${(worst / scale).toExponential(1)} of the largest and more than ${tolerance}`,
    );
  }
}

/**
 * Compares what a flat array holds of every parameter, each by its own largest magnitude: one with
 * small gradients has to be as right as one with large gradients.
 *
 * @param floor Part of the largest of all by which smaller ones are compared: gradients that cancel
 * to nothing in exact arithmetic, as that of a bias of keys, are rounding.
 */
export function assertParametersClose(
  { specs, offsets }: ParameterLayout,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
  floor = 1e-3,
): void {
  const least = floor * Array.from(expected).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  specs.forEach(({ name, shape }, i) => {
    const [a, b] = [actual, expected].map((flat) =>
      Array.from({ length: sizeOf(shape) }, (_, k) => flat[offsets[i] + k])
    );
    assertClose([...a, least], [...b, least], tolerance, `${what} of ${name}`);
  });
}
