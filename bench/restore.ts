// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Restoration of test digits by the model of MNIST that comes with the package: how near the pictures
 * are, whether a classifier sees the digit that it was, and whether the result agrees with the input:
 *
 *     deno task bench:restore [--task superres:4] [--method pigdm|dps] [--count 256] [--steps 50]
 *       [--zeta 8] [--seed 0] [--device cpu] [--threads N] [--out FOLDER]
 *
 * Tasks are `superres:FACTOR`, `deblur:SIGMA` and `inpaint`, of the lower half.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { drawGrid, encodePng } from "../src/cli/media/picture_files.ts";
import { makeFolder, writeOutput } from "../src/cli/terminal/files.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { fetchModel } from "../src/model/pretrained.ts";
import { operators } from "../src/sample/guidance/operators.ts";
import type { RestorationMethod } from "../src/sample/guidance/restored.ts";
import { measure, restorationSteps, restore } from "../src/sample/restore.ts";
import { sizeOf } from "../src/shape.ts";
import { openJudge, pick } from "./judge.ts";

const flags = parseArgs(Deno.args, {
  string: [
    ...["task", "method", "count", "steps", "zeta", "seed", "device", "threads", "out"],
  ],
});
const task = String(flags.task ?? "superres:4"), [name, setting = "0"] = task.split(":");
const operator = {
  superres: () => operators.superres(Number(setting)),
  deblur: () => operators.deblur(Number(setting)),
  inpaint: operators.inpaint,
}[name]!();
const count = Number(flags.count ?? 256);
const method = (flags.method ?? "pigdm") as RestorationMethod;
const steps = Number(flags.steps ?? restorationSteps[method]);
using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
using judge = await openJudge(device);
const { test, accuracy } = judge;
const { images: truth, labels } = await pick(test, count), { shape } = test, each = sizeOf(shape);
const lower = Float32Array.from({ length: 784 }, (_, i) => i < 392 ? 0 : 1);
const mask = Float32Array.from({ length: 784 * count }, (_, i) => lower[i % 784]);

const measured = { count, shape, data: truth }, conditions = name === "inpaint" ? { mask } : {};
const measurement = await measure(device, operator, measured, conditions);
/** The pseudoinverse as what measures: what is known of the pictures without a model. */
const back = await measure(
  device,
  {
    norm: 1,
    measured: (item) => item,
    ...(operator.conditions ? { conditions: operator.conditions } : {}),
    apply: (x, values) => operator.pinv(operator.apply(x, values), values),
    pinv: operator.pinv,
  },
  measured,
  conditions,
);

/** The mean over pictures of their signal-to-noise ratios in decibels, of a range of 2. */
function psnr(images: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < count; i++) {
    let square = 0;
    for (let k = i * each; k < (i + 1) * each; k++) {
      square += (Math.max(-1, Math.min(1, images[k])) - truth[k]) ** 2;
    }
    sum += 10 * Math.log10(4 / Math.max(square / each, 1e-9));
  }
  return sum / count;
}

const rightOf = async (images: Float32Array<ArrayBuffer>) =>
  (await judge.look(images)).rightOf(labels);
const began = performance.now();
const { images, found, left } = await restore(
  device,
  await fetchModel("mnist-unconditional"),
  operator,
  measurement,
  {
    ...{ method, steps, batchSize: 32 },
    ...(flags.zeta ? { zeta: Number(flags.zeta) } : {}),
    seed: Number(flags.seed ?? 0),
    conditions,
    onProgress(done, total) {
      if (done % 50 === 0) console.error(`step ${done} of ${total}`);
    },
  },
);
const rms = (values: readonly number[]) =>
  Math.sqrt(values.reduce((sum, r) => sum + r * r, 0) / count).toFixed(5);
const share = (x: number) => `${(100 * x).toFixed(1)} %`;
console.log(
  `${task} by ${method}, ${steps} steps, ${count} test digits, ` +
    `${((performance.now() - began) / 1000).toFixed(0)} s:`,
);
console.log(
  `PSNR         ${psnr(images.data).toFixed(2)} dB, of the pseudoinverse ` +
    `${psnr(back.data).toFixed(2)} dB`,
);
console.log(
  `right digit  ${share(await rightOf(images.data))}, of the pseudoinverse ` +
    `${share(await rightOf(back.data))}, of the originals ${share(await rightOf(truth))} ` +
    `(${share(accuracy)} of the test set)`,
);
console.log(`agreement    ${rms(left)} rms, ${rms(found)} before the projection, of a range of 2`);
if (flags.out) {
  const folder = String(flags.out);
  await makeFolder(folder);
  for (const [name, data] of Object.entries({ truth, back: back.data, restored: images.data })) {
    const some = { count: Math.min(64, count), shape, data: data.slice(0, 64 * each) };
    await writeOutput(
      join(folder, `${name}.png`),
      await encodePng(drawGrid(some), { task, method }),
    );
  }
}
