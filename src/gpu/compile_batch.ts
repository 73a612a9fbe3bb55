/**
 * Compiles for a batch size; if it does not fit, reports the largest that does.
 *
 * @module
 */

import { type CompileOptions, type Device, LimitError, type Program } from "./device.ts";
import type { Graph } from "./graph.ts";

/**
 * Compiles the graph for a batch.
 *
 * @param ways Graphs that compute the same, each with less memory than the one before.
 * @returns The first program that fits, and the number of its way.
 * @throws {LimitError} If none fits; it names the largest batch that does, by the last way.
 */
export async function compileBatch(
  device: Device,
  batch: number,
  ways: readonly ((batch: number) => Graph)[],
  options: CompileOptions,
): Promise<{ program: Program; way: number }> {
  let refusal: LimitError | undefined;
  for (const [way, graphFor] of ways.entries()) {
    try {
      return { program: await device.compile(graphFor(batch), options), way };
    } catch (error) {
      if (!(error instanceof LimitError)) throw error;
      refusal = error;
    }
  }
  const { message, wanted, limit } = refusal!, graphFor = ways[ways.length - 1];
  const largest = largestThat(
    (n) => device.plan(graphFor(n), options).excess === undefined,
    batch,
  );
  const advice = largest
    ? `the largest batch that fits is ${largest}`
    : "not even a single image fits";
  throw new LimitError(`${message}; ${advice}`, wanted, limit, largest);
}

/** The largest number below `end` that fits, if all smaller ones do as well; 0 if none does. */
export function largestThat(fits: (n: number) => boolean, end: number): number {
  let good = 0, bad = end;
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (fits(middle)) good = middle;
    else bad = middle;
  }
  return good;
}
