// deno-lint-ignore-file no-console -- printing is what it does
/**
 * How good the pictures of each sampler are after so many steps, and how long they take, on the model
 * of MNIST that comes with the package:
 *
 *     deno task bench:samplers [--count 2048] [--methods ddpm,ddim] [--steps 5,10] [--threads N]
 *
 * The measure is the Fréchet distance to the 10,000 test images in the features of the classifier that
 * comes with the package. All but the network takes next to no time (bench/overhead.ts), so that the
 * time is that of as many evaluations as there are steps, by the fastest 64 images of all.
 *
 * Everything is kept in a folder of caches (`--cache`), images 64 by 64, so that it can be stopped at
 * any time; of several processes, `--part 0/2` and `--part 1/2` each paint a share, and one without
 * paints what is missing and prints the table.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { frechetDistance } from "../src/evaluate/frechet_distance.ts";
import type { Device } from "../src/gpu/device.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import type { Model } from "../src/model/model.ts";
import { flatten } from "../src/model/parameters.ts";
import { fetchModel } from "../src/model/pretrained.ts";
import type { MethodName } from "../src/sample/solvers/mod.ts";
import { Sampler } from "../src/sample/sampler.ts";
import { benchCache, gaussianOf, keep, openJudge, pick } from "./judge.ts";

/** Images of a file. */
const CHUNK = 64;
/** Columns and rows of the table, and the methods that are worth a thousand steps. */
const STEPS = [5, 10, 20, 50, 1000], PATIENT: readonly string[] = ["ddpm"];
const METHODS = ["ddpm", "ddim", "euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"];

const flags = parseArgs(Deno.args, {
  string: ["count", "methods", "steps", "cache", "device", "threads", "part"],
});
const count = CHUNK * Math.ceil(Number(flags.count ?? 2048) / CHUNK);
const wanted = String(flags.methods ?? METHODS).split(",") as MethodName[];
const columns = String(flags.steps ?? STEPS).split(",").map(Number);
const part = /^(\d+)\/(\d+)$/.exec(String(flags.part ?? ""))?.slice(1).map(Number);
const cache = String(flags.cache ?? benchCache);

/** The first hexadecimal digits of what identifies a model. */
async function hash({ network, parameters }: Model): Promise<string> {
  const bytes = new Uint8Array(
    await crypto.subtle.digest("SHA-256", flatten(network.layout, parameters)),
  );
  return [...bytes.subarray(0, 4)].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Paints the images of a cell that are missing, or a share of them; returns them if they are all. */
async function paint(
  device: Device,
  model: Model,
  folder: string,
  method: MethodName,
  steps: number,
) {
  let sampler: Sampler | undefined, best = Infinity;
  const images: Float32Array[] = [];
  for (let chunk = 0; chunk * CHUNK < count; chunk++) {
    if (part && chunk % part[1] !== part[0]) continue;
    const { values, seconds } = await keep(
      join(cache, folder, `${method}-${steps}`, `${chunk}.safetensors`),
      async () => {
        sampler ??= await Sampler.create(device, model, { method, steps, batchSize: CHUNK });
        console.error(`painting ${method} ${steps}: ${chunk * CHUNK} of ${count}`);
        return (await sampler.sample({ count: CHUNK, seed: 1, first: chunk * CHUNK })).data;
      },
    );
    images.push(values);
    best = Math.min(best, seconds);
  }
  sampler?.[Symbol.dispose]();
  return { images, milliseconds: 1000 * best / CHUNK };
}

const model = await fetchModel("mnist-unconditional"), folder = await hash(model);
using device = await openDevice((flags.device ?? "auto") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
const cells = columns.flatMap((steps) =>
  wanted.filter((method) => steps < 1000 || PATIENT.includes(method))
    .map((method) => ({ method, steps }))
);
if (part) {
  for (const { method, steps } of cells) await paint(device, model, folder, method, steps);
  Deno.exit(0);
}

using judge = await openJudge(device);
const { training, test, accuracy } = judge;
const featuresOf = async (images: Float32Array<ArrayBuffer>) => (await judge.look(images)).features;
console.log(`The classifier has ${(100 * accuracy).toFixed(2)} % of the test set right.`);
const { images } = await pick(test, test.count), half = images.length / 2;
const first = gaussianOf(await featuresOf(images.slice(0, half)));
const second = gaussianOf(await featuresOf(images.slice(half)));
const real = await featuresOf((await pick(training, count)).images);
console.log(
  `Distances: ${
    (await frechetDistance(first, second)).toFixed(2)
  } between the halves of the test ` +
    `set, ${(await judge.distance(real)).toFixed(2)} from ${count} training images to it.\n`,
);

const distances = new Map<string, string>();
let fastest = Infinity;
for (const { method, steps } of cells) {
  const { images, milliseconds } = await paint(device, model, folder, method, steps);
  const all = new Float32Array(images.length * images[0].length);
  images.forEach((values, i) => all.set(values, i * values.length));
  distances.set(`${method} ${steps}`, (await judge.distance(await featuresOf(all))).toFixed(2));
  fastest = Math.min(fastest, milliseconds / steps);
}
const rows = [
  [`${count} images`, ...columns.map((steps) => `${steps} steps`)],
  ["-", ...columns.map(() => "-")],
  ...wanted.map((method) => [
    `\`${method}\``,
    ...columns.map((steps) => distances.get(`${method} ${steps}`) ?? ""),
  ]),
  ["milliseconds an image", ...columns.map((steps) => (steps * fastest).toFixed(0))],
];
console.log(rows.map((row) => `| ${row.join(" | ")} |`).join("\n"));
