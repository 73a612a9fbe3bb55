/**
 * `deno bench`: the same workloads as `run.ts`, on the GPU and on the CPU. Each iteration repeats its
 * workload, as told in its name, so that the wait for it does not count.
 *
 * @module
 */

import type { Device } from "../src/gpu/device.ts";
import { WasmDevice } from "../src/gpu/wasm/device.ts";
import { GpuDevice } from "../src/gpu/wgsl/device.ts";
import { prepare } from "./workloads.ts";

if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");

/** Workloads by group; small enough to be worth while on two cores. */
const groups: Record<string, readonly [name: string, repetitions: number][]> = {
  matmul: [["mm512", 20], ["mm1024", 4]],
  "convolution and its gradients": [
    ["conv_32_32_28_32", 8],
    ["convfb_32_32_28_32", 4],
    ["conv_16_128_16_128", 4],
  ],
  "group norm": [["gnsilu_16_128_32", 20], ["gnsilu_fb_16_128_32", 10]],
  attention: [["attn_16_256_128", 10], ["attn_fb_16_256_128", 4]],
  "training step": [["train_small_b32", 1]],
  "sampling step": [["sample_small_b32", 1]],
};

const devices: Record<string, Device | undefined> = {
  GPU: await GpuDevice.request(),
  CPU: await WasmDevice.open(),
};

for (const [group, workloads] of Object.entries(groups)) {
  for (const [name, repetitions] of workloads) {
    for (const [kind, device] of Object.entries(devices)) {
      if (!device) continue;
      const prepared = prepare(name, device);
      Deno.bench(
        { name: `${name} x${repetitions}, ${kind}`, group, n: 5, warmup: 1 },
        async (b) => {
          const workload = await prepared;
          b.start();
          workload.run(repetitions);
          await device.idle();
          b.end();
        },
      );
    }
  }
}
