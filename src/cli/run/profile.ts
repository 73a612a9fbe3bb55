/**
 * Descriptions and profiles of compiled programs as text, for `train --profile N` and the variable
 * DDPM_DEBUG.
 *
 * @module
 */

import type { Device } from "../../gpu/device.ts";
import type { ProgramDescription, StageDescription } from "../../gpu/describe.ts";
import type { Trainable } from "../../model/model.ts";
import type { Trainer } from "../../train/trainer.ts";
import { environment } from "../terminal/environment.ts";
import { columns, type Progress } from "../terminal/progress.ts";
import { formatBytes } from "../../units.ts";

/** Rows in the second table of a profile. */
const SHOWN = 30;
/** Warm-up steps: shaders are compiled when they first run. */
const WARMUP = 2;

/** Describes a program on stderr if DDPM_DEBUG is set, with its WGSL if it is 2. */
export function debugProgram(progress: Progress, description: ProgramDescription): void {
  const level = environment("DDPM_DEBUG");
  if (!level) return;
  progress.say(formatProgram(description, level === "2"));
}

/** A program, one line per kernel. */
export function formatProgram(
  { label, stages, memory }: ProgramDescription,
  withCode: boolean,
): string {
  const kernels = stages.reduce((sum, stage) => sum + stage.kernels.length, 0);
  const flops = stages.reduce((sum, stage) => sum + stage.flops, 0);
  const rows = stages.flatMap((stage) =>
    stage.kernels.map((kernel, i) => [
      ...(i ? ["", "", ""] : [stage.op, `[${stage.shape}]`, formatFlops(stage.flops)]),
      ...[kernel.label, formatBytes(kernel.bytes), String(kernel.groups)],
      i ? "" : formatFused(stage),
    ])
  );
  const codes = new Set(stages.flatMap(({ kernels }) => kernels.flatMap((k) => k.code ?? [])));
  return [
    `${label}: ${stages.length} stages, ${kernels} kernels, ${formatFlops(flops) || "0 FLOP"}`,
    `memory: ${formatBytes(memory.bytes)}, of which ${formatBytes(memory.temporary)} are shared ` +
    `by intermediate tensors of ${formatBytes(memory.unshared)}`,
    ...columns([
      ["stage", "shape", "FLOP", "kernel", "reaches", "groups", "elementwise"],
      ...rows,
    ], 2),
    ...(codes.size ? [`${codes.size} different shaders`] : []),
    ...(withCode ? [...codes].flatMap((code) => ["", code]) : []),
  ].join("\n");
}

/** Runs some training steps and reports where their time went. */
export async function profileTraining(
  trainer: Trainer<Trainable>,
  device: Device,
  steps: number,
  progress: Progress,
): Promise<string> {
  for (let i = 0; i < WARMUP; i++) await trainer.run();
  await device.idle();
  const began = performance.now();
  for (let i = 0; i < steps; i++) await trainer.run();
  await device.idle();
  const whole = (performance.now() - began) / steps, { stages } = trainer.describe();
  const sums = new Array<number>(stages.flatMap((stage) => stage.kernels).length).fill(0);
  for (let i = 0; i < steps; i++) {
    progress.update(`step ${i + 1} of ${steps}, kernel by kernel`);
    (await trainer.profile()).forEach((ms, k) => sums[k] += ms / steps);
  }
  progress.clear();
  return formatProfile(stages, sums, whole);
}

/** A group of kernels and the milliseconds they took. */
interface Entry {
  readonly name: string;
  ms: number;
  kernels: number;
  flops: number;
  bytes: number;
}

/** A profile by operation, then by operation and shape, the slowest first. */
export function formatProfile(
  stages: readonly StageDescription[],
  times: readonly number[],
  whole: number,
): string {
  const total = times.reduce((sum, ms) => sum + ms, 0);
  const group = (nameOf: (stage: StageDescription) => string): Entry[] => {
    const entries = new Map<string, Entry>();
    let next = 0;
    for (const stage of stages) {
      const name = nameOf(stage);
      const entry = entries.get(name) ?? { name, ms: 0, kernels: 0, flops: 0, bytes: 0 };
      entries.set(name, entry);
      entry.flops += stage.flops;
      for (const { bytes } of stage.kernels) {
        entry.ms += times[next++];
        entry.kernels++;
        entry.bytes += bytes;
      }
    }
    return [...entries.values()].sort((a, b) => b.ms - a.ms);
  };
  const row = ({ name, ms, kernels, flops, bytes }: Entry) => [
    ...[name, ms.toFixed(2), `${(100 * ms / total).toFixed(1)} %`, String(kernels)],
    flops ? (flops / ms / 1e6).toPrecision(3) : "",
    (bytes / ms / 1e6).toPrecision(3),
  ];
  const table = (head: string, entries: readonly Entry[]) =>
    columns([[head, "ms", "share", "kernels", "GFLOP/s", "GB/s"], ...entries.map(row)], 1);
  const shaped = group(({ op, shape }) => `${op} [${shape}]`);
  return [
    `a step takes ${whole.toFixed(1)} ms; kernel by kernel, ${total.toFixed(1)} ms`,
    "",
    ...table("operation", group(({ op }) => op)),
    "",
    ...table("operation and shape", shaped.slice(0, SHOWN)),
    ...(shaped.length > SHOWN ? [`and ${shaped.length - SHOWN} more`] : []),
  ].join("\n");
}

const formatFused = ({ fused }: StageDescription): string =>
  Object.entries(fused).map(([name, n]) => `${n} ${name}`).join(", ");

const formatFlops = (flops: number): string =>
  flops ? `${formatBytes(flops).replace(/(.?)(bytes|B)$/, "$1FLOP")}` : "";
