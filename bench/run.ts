// deno-lint-ignore-file no-console -- printing is what it does
/**
 * The instrument. One workload here, as a line of JSON in the form of the peers' scripts:
 *
 *     deno task bench --op train_small_b32 --device cpu [--threads N] [--variant NAME] [--samples 7]
 *
 * Or a report of everything, with the peers that are installed, all in turns so that they meet the
 * same moods of the machine; `--only` names some of them, words some workloads:
 *
 *     deno task bench [WORKLOAD...] [--only gpu,jax-js] [--rounds 3] [--out bench/report]
 *
 * It writes `bench/report.json` and `bench/report.md`.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { keepTuning, tuningFile } from "../src/cli/terminal/tuning.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import type { Line } from "./peers.ts";
import { report } from "./report.ts";
import { prepare } from "./workloads.ts";

/** Work behind one wait: Deno looks for a GPU's completion every 10 ms only. */
const SLICE_MS = 300;
/** Runs of one sample at most. */
const MAX_RUNS = 4096;

/** The most memory that the process held, in MB; 0 where that is not known. */
function peakMemory(): number {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  } catch {
    return 0;
  }
}

/** Settings of one measurement. */
interface Measurement {
  readonly op: string;
  readonly device: DeviceKind;
  readonly threads?: number;
  readonly variant?: string;
  readonly samples: number;
}

/** Measures one workload. */
async function measure({ op, samples, variant, ...options }: Measurement): Promise<Line> {
  const file = variant === undefined ? tuningFile() : undefined;
  using device = await openDevice(options.device, {
    ...options,
    // As the program does.
    ...(file ? { tuning: await keepTuning(file) } : {}),
  });
  const isGpu = device instanceof GpuDevice;
  if (isGpu && variant !== undefined) Object.assign(device.target, { preferred: variant });
  const began = performance.now();
  using workload = await prepare(op, device);
  workload.run();
  await device.idle();
  const first = performance.now() - began;

  /** Milliseconds of one run, over as many as fill a slice. */
  const sample = async (runs: number) => {
    const start = performance.now();
    workload.run(runs);
    await device.idle();
    return (performance.now() - start) / runs;
  };
  let runs = 1;
  for (let ms = await sample(1); ms * runs < SLICE_MS && runs < MAX_RUNS;) {
    runs = Math.min(MAX_RUNS, Math.ceil(SLICE_MS / ms));
    ms = await sample(runs);
  }
  const ms: number[] = [];
  for (let i = 0; i < samples; i++) ms.push(Number((await sample(runs)).toPrecision(5)));
  return {
    peer: `ddpm-${device.kind}`,
    ...{ op, ms, first: Math.round(first), rss_mb: peakMemory(), device: device.name },
    ...{ flops: workload.flops, bytes: workload.bytes, variants: workload.variants },
    ...(isGpu ? { pipelines: device.pipelines, software: device.isSoftware } : {}),
  };
}

if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
const flags = parseArgs(Deno.args, {
  string: ["op", "device", "threads", "variant", "samples", "only", "rounds", "out", "_"],
  unknown(arg: string) {
    if (!arg.startsWith("-")) return true;
    console.error(`error: Unknown flag ${arg}`);
    Deno.exit(2);
  },
});
const text = (name: string) => flags[name] === undefined ? undefined : String(flags[name]);
try {
  if (flags.op !== undefined) {
    const [threads, variant] = [text("threads"), text("variant")];
    const line = await measure({
      ...{ op: text("op")!, device: (text("device") ?? "auto") as DeviceKind },
      samples: Number(text("samples") ?? 7),
      ...(threads === undefined ? {} : { threads: Number(threads) }),
      ...(variant === undefined ? {} : { variant }),
    });
    console.log(JSON.stringify(line));
  } else {
    await report({
      workloads: flags._.map(String),
      only: text("only")?.split(","),
      rounds: Number(text("rounds") ?? 3),
      out: text("out") ?? "bench/report",
    });
  }
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : error}`);
  Deno.exitCode = error instanceof RangeError ? 2 : 1;
}
