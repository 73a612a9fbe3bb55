// deno-lint-ignore-file no-console -- printing is what it does
/**
 * What guidance does to the pictures of a class-conditional model of digits: the share in which a
 * classifier sees the class that was asked for, and the Fréchet distance to the test set in its
 * features, for several scales:
 *
 *     deno task bench:classes --model runs/digits [--count 2048] [--guidance 1,2,4] [--threads N]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { openModel } from "../src/cli/run/open_model.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { guided } from "../src/sample/guidance/guided.ts";
import { Sampler } from "../src/sample/sampler.ts";
import { openJudge } from "./judge.ts";

const flags = parseArgs(Deno.args, {
  string: ["model", "count", "guidance", "device", "threads", "steps"],
});
const count = Number(flags.count ?? 2048), steps = Number(flags.steps ?? 20);
const scales = String(flags.guidance ?? "1,2,4").split(",").map(Number);
const model = await openModel(String(flags.model));
using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
using judge = await openJudge(device);
const labels = Array.from({ length: count }, (_, i) => i % 10);
console.log(`${count} images, dpmpp_2m_sde in ${steps} steps, of ${flags.model}:\n`);
console.log("| guidance | class asked for | Fréchet distance |\n| --- | --- | --- |");
for (const scale of scales) {
  using sampler = await Sampler.create(device, model, {
    ...{ method: "dpmpp_2m_sde", steps, batchSize: 64 },
    wrap: scale === 1 ? [] : [guided({ scale })],
  });
  const { data } = await sampler.sample({
    ...{ count, seed: 0, labels },
    onProgress(done, total) {
      if (done % 20 === 0) console.error(`guidance ${scale}: step ${done} of ${total}`);
    },
  });
  const seen = await judge.look(data), right = seen.rightOf(labels);
  const distance = await judge.distance(seen.features);
  console.log(`| ${scale} | ${(100 * right).toFixed(1)} % | ${distance.toFixed(2)} |`);
}
