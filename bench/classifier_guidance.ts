// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Classifier guidance. What it does: digits that are asked for of the model of MNIST that comes with
 * the package, which knows no classes, and what another classifier sees:
 *
 *     deno task bench:classifier --classifier MODEL [--scales 0,1,3,5] [--count 512] [--steps 20]
 *       [--sampler dpmpp_2m_sde] [--seed 1] [--device cpu] [--threads N] [--out FOLDER]
 *
 * And what it costs, with `--cost`: a step beside one without and the gradient of the classifier, on
 * the network `small` of the workloads and a classifier with the same encoder, in turns. Times of the
 * processor say most where other work goes on.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { drawGrid, encodePng } from "../src/cli/media/picture_files.ts";
import { loadModel } from "../src/cli/run/load_model.ts";
import { makeFolder, writeOutput } from "../src/cli/terminal/files.ts";
import { denoiserFrom } from "../src/diffusion/denoiser.ts";
import { NoiseSchedule, parseSchedule } from "../src/diffusion/schedule.ts";
import { mul } from "../src/gpu/ops/map.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { initializeModel } from "../src/model/model.ts";
import { parseNetwork } from "../src/model/network.ts";
import { fetchModel } from "../src/model/pretrained.ts";
import { classifierGuided } from "../src/sample/guidance/classifier_guided.ts";
import { Sampler } from "../src/sample/sampler.ts";
import type { MethodName } from "../src/sample/solvers/mod.ts";
import { openJudge } from "./judge.ts";

const flags = parseArgs(Deno.args, {
  boolean: ["cost"],
  string: [
    ...["classifier", "scales", "count", "steps", "sampler", "seed", "device", "threads"],
    ...["out", "batch", "rounds"],
  ],
});
using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
await (flags.cost ? measureCost() : measureDigits());

async function measureDigits() {
  const classifier = await loadModel(String(flags.classifier)),
    model = await fetchModel("mnist-unconditional");
  using judge = await openJudge(device);
  const count = Number(flags.count ?? 512), steps = Number(flags.steps ?? 20);
  const method = (flags.sampler ?? "dpmpp_2m_sde") as MethodName;
  const labels = Array.from({ length: count }, (_, k) => k % 10);
  using sampler = await Sampler.create(device, model, {
    ...{ method, steps, batchSize: 64, wrap: [classifierGuided(classifier)] },
  });
  console.log(
    `${count} images by ${method} in ${steps} steps; the judge has ` +
      `${(100 * judge.accuracy).toFixed(1)} % of the test set right\n`,
  );
  console.log("| scale | asked digit | Fréchet distance |\n| - | - | - |");
  for (const scale of String(flags.scales ?? "0,1,3,5").split(",").map(Number)) {
    const images = await sampler.sample({
      ...{ count, seed: Number(flags.seed ?? 1), labels },
      conditions: { classifier_scale: [scale] },
      onProgress: (done, total) => done % 20 === 0 && console.error(`step ${done} of ${total}`),
    });
    const seen = await judge.look(images.data), right = seen.rightOf(labels);
    const distance = await judge.distance(seen.features);
    console.log(`| ${scale} | ${(100 * right).toFixed(1)} % | ${distance.toFixed(2)} |`);
    if (!flags.out) continue;
    await makeFolder(String(flags.out));
    const shown = { ...images, count: 100, data: images.data.slice(0, 100 * 784) };
    await writeOutput(
      join(String(flags.out), `scale-${scale}.png`),
      await encodePng(drawGrid(shown), { scale }),
    );
  }
}

async function measureCost() {
  const batch = Number(flags.batch ?? 16), rounds = Number(flags.rounds ?? 15), STEPS = 4;
  const fields = {
    ...{ sample_size: 32, in_channels: 1, block_out_channels: [32, 64, 64], layers_per_block: 1 },
    ...{ norm_num_groups: 8, attention_head_dim: null, freq_shift: 1, flip_sin_to_cos: false },
    down_block_types: ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
  };
  const up_block_types = ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"];
  const model = initializeModel(
    parseNetwork({ ...fields, out_channels: 1, up_block_types }),
    {},
    0,
  );
  const classifier = initializeModel(
    parseNetwork({ ...fields, _class_name: "UNet2DClassifier", num_classes: 10 }),
    ...[{}, 0] as const,
  );
  // A denoiser that does nothing: what is left is the classifier, forward and backward.
  const nothing = denoiserFrom((x) => mul(x, 0.5), {
    schedule: new NoiseSchedule(parseSchedule({})),
    itemShape: [32, 32, 1],
  });
  const options = { method: "ddim", steps: STEPS, batchSize: batch } as const;
  const wrap = [classifierGuided(classifier, { scale: 3 })];
  using plain = await Sampler.create(device, model, options);
  using guided = await Sampler.create(device, model, { ...options, wrap });
  using gradient = await Sampler.create(device, nothing, { ...options, wrap });
  const kinds = { plain, gradient, guided },
    labels = Array.from({ length: batch }, (_, k) => k % 10);
  type Times = Record<keyof typeof kinds, number[]>;
  const wall: Times = { plain: [], gradient: [], guided: [] };
  const cpu: Times = { plain: [], gradient: [], guided: [] };
  for (let round = -1; round < rounds; round++) {
    for (const [name, sampler] of Object.entries(kinds) as [keyof Times, Sampler][]) {
      const began = performance.now(), before = process.cpuUsage();
      await sampler.sample({ count: batch, ...(name === "plain" ? {} : { labels }) });
      const { user } = process.cpuUsage(before);
      // The first turn warms up.
      if (round < 0) continue;
      wall[name].push((performance.now() - began) / STEPS);
      cpu[name].push(user / 1000 / STEPS);
    }
  }
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
  const ratio = ({ plain, gradient, guided }: Times) =>
    median(guided.map((t, i) => t / (plain[i] + gradient[i]))).toFixed(3);
  console.log(`${device.name}, ${batch} images, ${rounds} turns, best milliseconds a step:`);
  for (const [name, times] of Object.entries(wall)) {
    console.log(`${name.padEnd(10)}${Math.min(...times).toFixed(2).padStart(10)}`);
  }
  const flops = guided.flops / (plain.flops + gradient.flops);
  console.log(
    `a guided step is ${ratio(wall)} of a plain one and a gradient by the clock, ${
      ratio(cpu)
    } by ` +
      `the processor, ${flops.toFixed(3)} by FLOP`,
  );
}
