/**
 * The memory of a training, told before its first step.
 *
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { GpuDevice } from "../gpu/wgsl/device.ts";
import type { Sampler } from "../sample/sampler.ts";
import type { Trainer } from "../train/trainer.ts";
import { formatBytes } from "./progress.ts";

/**
 * What a training is going to take at the most, in words. What its process has taken so far is
 * measured: the runtime, the program, what compiling it left, and data that are kept in memory; of
 * the device's memory, which counts once it is written to, it has the weights and their average.
 *
 * @param read Bytes of a state that was read to go on from, and is given back.
 */
export function describeMemory(
  device: Device,
  trainer: Trainer,
  sampler: Sampler | undefined,
  read: number,
): string {
  const weights = 4 * trainer.average.length;
  const isInProcess = !(device instanceof GpuDevice) || device.isSoftware;
  const steps = trainer.memory + (sampler?.memory ?? 0);
  // A checkpoint has the weights in memory three times: as they lie, as files have them, and a file.
  const saving = sampler ? 3 * weights : 0;
  // Initial weights are given back too.
  const rest = Deno.memoryUsage().rss - read - (isInProcess ? 3 : 1) * weights;
  const parts = [
    ...(isInProcess ? [`${formatBytes(steps)} to compute`] : []),
    ...(saving ? [`${formatBytes(saving)} to save`] : []),
    `${formatBytes(rest)} for program and data`,
  ];
  const all = saving + rest + (isInProcess ? steps : 0);
  return (isInProcess ? "" : `${formatBytes(steps)} on the device, `) +
    `${formatBytes(all)} in the process: ${parts.join(", ")}`;
}
