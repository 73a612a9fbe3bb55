/**
 * The peak memory of a training, estimated before its first step.
 *
 * @module
 */

import type { Device } from "../../gpu/device.ts";
import { GpuDevice } from "../../gpu/wgsl/device.ts";
import type { Trainable } from "../../model/model.ts";
import type { Trainer } from "../../train/trainer.ts";
import { formatBytes } from "../../units.ts";

/** V8 heap and machine code after compiling a training: 80 to 110 MB. */
const COMPILED = 100e6;

/** Resident memory of the process in bytes. */
export const residentBytes = (): number => Deno.memoryUsage().rss;

/**
 * The peak memory of a training as text.
 *
 * @param base Resident bytes with data and device open but before compiling: the runtime, the
 * program, threads, and data kept in memory.
 */
export function describeMemory(
  device: Device,
  trainer: Trainer<Trainable>,
  shower: { readonly memory: number } | undefined,
  base: number,
): string {
  const isInProcess = !(device instanceof GpuDevice) || device.isSoftware;
  const steps = trainer.memory + (shower?.memory ?? 0), rest = base + COMPILED;
  // A checkpoint has the weights in memory once, and one tensor of them in the layout of files.
  const saving = shower || ["classifier", "contrastive"].includes(trainer.config.objective)
    ? 4 * trainer.buffers.ema.length
    : 0;
  const parts = [
    ...(isInProcess ? [`${formatBytes(steps)} to compute`] : []),
    ...(saving ? [`${formatBytes(saving)} to save`] : []),
    `${formatBytes(rest)} for program and data`,
  ];
  const all = saving + rest + (isInProcess ? steps : 0);
  return (isInProcess ? "" : `${formatBytes(steps)} on the device, `) +
    `${formatBytes(all)} in the process: ${parts.join(", ")}`;
}

/** Bytes of memory that are free; `undefined` where Deno was not allowed to see. */
export function freeMemory(): number | undefined {
  try {
    return Deno.systemMemoryInfo().available;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}
