/**
 * The memory of a training, told before its first step.
 *
 * @module
 */

import type { Device } from "../../gpu/device.ts";
import { GpuDevice } from "../../gpu/wgsl/device.ts";
import type { Sampler } from "../../sample/sampler.ts";
import type { Trainer } from "../../train/trainer.ts";
import { formatBytes } from "../terminal/progress.ts";

/** What compiling a training leaves in V8's heap and as machine code, 80 to 110 MB. */
const COMPILED = 100e6;

/** Bytes of memory that the process has. */
export const residentBytes = (): number => Deno.memoryUsage().rss;

/**
 * What a training is going to take at the most, in words.
 *
 * @param base Bytes that the process had with its data and its device open, before it compiled:
 * the runtime, the program, threads, and data that are kept in memory.
 */
export function describeMemory(
  device: Device,
  trainer: Trainer,
  sampler: Sampler | undefined,
  base: number,
): string {
  const isInProcess = !(device instanceof GpuDevice) || device.isSoftware;
  const steps = trainer.memory + (sampler?.memory ?? 0), rest = base + COMPILED;
  // A checkpoint has the weights in memory once, and one tensor of them as files have it.
  const saving = sampler ? 4 * trainer.buffers.ema.length : 0;
  const parts = [
    ...(isInProcess ? [`${formatBytes(steps)} to compute`] : []),
    ...(saving ? [`${formatBytes(saving)} to save`] : []),
    `${formatBytes(rest)} for program and data`,
  ];
  const all = saving + rest + (isInProcess ? steps : 0);
  return (isInProcess ? "" : `${formatBytes(steps)} on the device, `) +
    `${formatBytes(all)} in the process: ${parts.join(", ")}`;
}
