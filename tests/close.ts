/**
 * Comparison of arrays that says what is wrong in a line.
 *
 * @module
 */

import { AssertionError } from "@std/assert";

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
