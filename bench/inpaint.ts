// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Inpainting of digits: the lower half of test images is painted anew by the model of MNIST that comes
 * with the package, and a classifier says whether the digit is still the one that it was:
 *
 *     deno task bench:inpaint [--count 512] [--resample 5] [--jump 5] [--steps 50] [--threads N]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { fetchModel } from "../src/model/pretrained.ts";
import { inpaint } from "../src/sample/editing/inpaint.ts";
import { Sampler } from "../src/sample/sampler.ts";
import { openJudge, pick } from "./judge.ts";

const flags = parseArgs(Deno.args, {
  string: ["count", "resample", "jump", "steps", "device", "threads"],
});
const count = Number(flags.count ?? 512), steps = Number(flags.steps ?? 50);
const resample = { jump: Number(flags.jump ?? 5), times: Number(flags.resample ?? 5) };

using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
using judge = await openJudge(device);
const { test, accuracy } = judge;
const { images, labels } = await pick(test, count), { shape } = test;
const mask = Float32Array.from({ length: 784 }, (_, i) => i < 392 ? 0 : 1);
using sampler = await Sampler.create(device, await fetchModel("mnist-unconditional"), {
  ...{ method: "ddpm", steps, resample, batchSize: 64, wrap: [inpaint()] },
});
const { data } = await sampler.sample({
  ...{ count, seed: 0, conditions: { known: images, mask: repeat(mask, count) } },
  onProgress(done, total) {
    if (done % 50 === 0) console.error(`step ${done} of ${total}`);
  },
});

/** The mask of each image. */
function repeat(mask: Float32Array, count: number): Float32Array {
  return Float32Array.from({ length: count * mask.length }, (_, i) => mask[i % mask.length]);
}

const kept = data.every((x, i) => mask[i % 784] || x === images[i]);
const right = (await judge.look(data)).rightOf(labels);
const shares = [right, accuracy].map((share) => (100 * share).toFixed(1));
console.log(
  `${count} digits of ${shape.join("x")}, ${sampler.evaluations} evaluations each ` +
    `(${steps} steps, jump ${resample.jump}, ${resample.times} times): kept pixels ` +
    `${kept ? "exact" : "CHANGED"}, ${shares[0]} % still the digit that they were ` +
    `(of real ones the classifier knows ${shares[1]} %)`,
);
