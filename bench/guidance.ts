// deno-lint-ignore-file no-console -- printing is what it does
/**
 * What guidance and inpainting cost: the time of such a step beside that of the step without, on the
 * network `small` of the workloads, with classes:
 *
 *     deno task bench:guidance [--batch 16] [--device cpu] [--threads N] [--rounds 15]
 *
 * All kinds are taken in turns, so that they meet the same moods of the machine. Beside the best times
 * stand the median of the ratios of each turn, and that of the time that the processor spent on this
 * process alone, which on a machine with other work tells most where a CPU computes.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "@std/cli/parse-args";
import type { DenoiserWrapper } from "../src/diffusion/denoiser.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { initializeModel } from "../src/model/model.ts";
import { denoiserOf } from "../src/model/denoiser.ts";
import { parseNetwork } from "../src/model/network.ts";
import { inpaint } from "../src/sample/editing/inpaint.ts";
import { autoguided } from "../src/sample/guidance/autoguided.ts";
import { guided } from "../src/sample/guidance/guided.ts";
import { Sampler } from "../src/sample/sampler.ts";
import { networks } from "./workloads.ts";

/** Steps of a run. */
const STEPS = 4;

const flags = parseArgs(Deno.args, { string: ["batch", "device", "threads", "rounds"] });
const batch = Number(flags.batch ?? 16), rounds = Number(flags.rounds ?? 15);
const fields = { ...networks.small.config, num_class_embeds: 11 };
const [model, earlier] = [0, 1].map((seed) =>
  initializeModel(parseNetwork(fields), {}, seed, Array.from({ length: 10 }, (_, i) => String(i)))
);
const weak = denoiserOf(earlier, [32, 32], "weak");
using device = await openDevice((flags.device ?? "auto") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
const kinds: Record<string, readonly DenoiserWrapper[]> = {
  "unguided": [],
  "guided": [guided({ scale: 2 })],
  "guided, rescaled": [guided({ scale: 2, rescale: 0.7 })],
  "guided in an interval": [guided({ scale: 2, interval: [0.3, 1.6] })],
  "outside of the interval": [guided({ scale: 2, interval: [1e8, Infinity] })],
  "autoguided": [autoguided(weak)],
  "inpainted": [inpaint()],
};
using stack = new DisposableStack();
const samplers: Record<string, Sampler> = {};
for (const [name, wrap] of Object.entries(kinds)) {
  const options = { method: "ddim", steps: STEPS, batchSize: batch, wrap } as const;
  samplers[name] = stack.use(await Sampler.create(device, model, options));
}
const labels = Array.from({ length: batch }, (_, k) => k % 10);
/** Milliseconds of a step in each turn, on the clock and of the processor. */
type Times = { readonly wall: number[]; readonly cpu: number[] };
const times: Record<string, Times> = Object.fromEntries(
  Object.keys(kinds).map((name) => [name, { wall: [], cpu: [] }]),
);
for (let round = -1; round < rounds; round++) {
  for (const [name, sampler] of Object.entries(samplers)) {
    const began = performance.now(), before = process.cpuUsage();
    await sampler.sample({ count: batch, labels });
    const { user } = process.cpuUsage(before);
    // The first turn warms up.
    if (round < 0) continue;
    times[name].wall.push((performance.now() - began) / STEPS);
    times[name].cpu.push(user / 1000 / STEPS);
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
const ratio = (name: string, of: keyof Times) =>
  median(times[name][of].map((t, i) => t / times.unguided[of][i])).toFixed(3);
console.log(`${device.name}, ${batch} images, ${rounds} turns:`);
const row = (...cells: string[]) =>
  console.log(cells.map((c, i) => i ? c.padStart(14) : c.padEnd(26)).join(""));
row("", "ms a step", "of unguided", "median", "processor");
for (const name of Object.keys(kinds)) {
  const [least, unguided] = [name, "unguided"].map((name) => Math.min(...times[name].wall));
  const cells = [least.toFixed(2), (least / unguided).toFixed(3)];
  row(name, ...cells, ratio(name, "wall"), ratio(name, "cpu"));
}
