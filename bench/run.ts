// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Measures one workload and prints a line of JSON, as the peers' scripts do:
 *
 *     deno task bench --op train_small_b32 --device cpu [--threads N] [--samples 7]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { EXAMPLES, prepare } from "./workloads.ts";

/** Work behind one wait: Deno looks for a GPU's completion every 10 ms only. */
const SLICE_MS = 300;

/** The most memory that the process held, in MB; 0 where that is not known. */
function peakMemory(): number {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  } catch {
    return 0;
  }
}

const flags = parseArgs(Deno.args, { string: ["op", "device", "threads", "samples"] });
if (!flags.op) {
  console.error(`bench needs --op NAME, for instance ${EXAMPLES.join(", ")}`);
  Deno.exit(2);
}
if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
const op = String(flags.op), samples = Number(flags.samples ?? 7);
using device = await openDevice((flags.device ?? "auto") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
const began = performance.now();
using workload = await prepare(op, device);
workload.run();
await device.idle();
const first = performance.now() - began;

/** Milliseconds of one run, over as many as fill a slice. */
async function sample(repetitions: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < repetitions; i++) workload.run();
  await device.idle();
  return (performance.now() - start) / repetitions;
}

let repetitions = 1;
for (let ms = await sample(1); ms * repetitions < SLICE_MS && repetitions < 4096;) {
  repetitions = Math.min(4096, Math.ceil(SLICE_MS / ms));
  ms = await sample(repetitions);
}
const ms: number[] = [];
for (let i = 0; i < samples; i++) ms.push(Number((await sample(repetitions)).toFixed(3)));
console.log(JSON.stringify({
  peer: `ddpm-${device.kind}`,
  ...{ op, ms, first: Math.round(first), flops: workload.flops, rss_mb: peakMemory() },
  device: device.name,
  ...(device instanceof GpuDevice ? { pipelines: device.pipelines } : {}),
}));
