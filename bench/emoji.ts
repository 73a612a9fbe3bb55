// deno-lint-ignore-file no-console -- printing is what it does
/**
 * What a text-to-image model of emoji makes of names that it never saw: how often a classifier sees the
 * category of the name, how often the real picture of the name is among the ten names whose pictures are
 * nearest in the classifier's features, and how many pictures are near copies of training images. Draws
 * the first 64 names, and beside each the nearest training image:
 *
 *     deno task bench:emoji --model MODEL --features CLASSIFIER [--guidance 1,3,5] [--out DIR]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { parseImages } from "../src/cli/commands/image_options.ts";
import { openDataset } from "../src/cli/data/data.ts";
import { drawGrid, encodePng } from "../src/cli/media/picture_files.ts";
import { openModel } from "../src/cli/run/open_model.ts";
import { firstItems } from "../src/cli/run/shown_samples.ts";
import { Progress } from "../src/cli/terminal/progress.ts";
import { classifierFeatures } from "../src/evaluate/classifier_features.ts";
import { findNeighbors } from "../src/evaluate/near_copies.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { guided } from "../src/sample/guidance/guided.ts";
import type { Samples } from "../src/sample/options.ts";
import { Sampler } from "../src/sample/sampler.ts";
import { sizeOf } from "../src/shape.ts";

const flags = parseArgs(Deno.args, {
  string: ["model", "features", "guidance", "device", "threads", "steps", "out"],
});
const scales = String(flags.guidance ?? "1,3,5").split(",").map(Number);
const progress = new Progress();
const [training, test] = await Promise.all(
  ["emoji", "emoji-test"].map((name) => openDataset(name, parseImages({}), progress)),
);
const model = await openModel(String(flags.model)), { tokenize } = denoisingNetwork(model);
if (!tokenize) throw new Error("The model does not read");
using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
using extractor = await classifierFeatures(device, await openModel(String(flags.features)));

/** Features of pictures, and the classes that they are taken for. */
async function look(pictures: Samples) {
  const { features, logits } = await extractor.extract(pictures),
    { width, classes = 0 } = extractor;
  const seen = Array.from({ length: pictures.count }, (_, i) => {
    const own = logits!.subarray(classes * i, classes * (i + 1));
    return own.indexOf(Math.max(...own));
  });
  return { rows: { count: pictures.count, width, data: features }, seen };
}

const pixels = ({ count, shape, data }: Samples) => ({ count, width: sizeOf(shape), data });
const share = (parts: readonly boolean[]) => parts.filter(Boolean).length / parts.length;
const percent = (x: number) => `${(100 * x).toFixed(1)} %`;

const names = [...new Set(test.names!)], first = names.map((name) => test.names!.indexOf(name));
const labels = first.map((i) => test.labels![i]),
  learnt = await firstItems(training, training.count);
const real = await firstItems(test, test.count), known = await look(real);
const category = (seen: readonly number[]) => share(seen.map((c, i) => c === labels[i]));

/** The share of pictures, one a name, whose name is among the ten with the nearest real pictures. */
function retrieval(rows: { readonly width: number; readonly data: Float32Array }): number {
  const { width } = rows;
  return share(names.map((name, i) => {
    const far = new Map<string, number>();
    test.names!.forEach((other, j) => {
      let square = 0;
      for (let c = 0; c < width; c++) {
        square += (rows.data[i * width + c] - known.rows.data[j * width + c]) ** 2;
      }
      far.set(other, Math.min(square, far.get(other) ?? Infinity));
    });
    return [...far].sort((a, b) => a[1] - b[1]).slice(0, 10).some(([other]) => other === name);
  }));
}

const byLabel = Map.groupBy(labels, (label) => label);
const commonest = Math.max(...[...byLabel.values()].map((all) => all.length)) / names.length;
const held = await findNeighbors(pixels(real), pixels(learnt));
console.log(
  `${names.length} names held out; chance: category ${percent(commonest)} at the best, ` +
    `name among ten ${percent(10 / names.length)}; of the real pictures of these names ` +
    `${
      percent(share(known.seen.map((c, i) => c === test.labels![i])))
    } are of the right category, ` +
    `and ${percent(held.nearCopies)} are near copies of training images\n`,
);
console.log(
  "| guidance | right category | name among ten | near copies |\n| --- | --- | --- | --- |",
);
for (const scale of scales) {
  using sampler = await Sampler.create(device, model, {
    ...{ steps: Number(flags.steps ?? 20), batchSize: 32 },
    wrap: scale === 1 ? [] : [guided({ scale })],
  });
  const tokens = names.flatMap((name) => [...tokenize(name)]);
  const images = await sampler.sample({ count: names.length, seed: 0, conditions: { tokens } });
  const { rows, seen } = await look(images);
  const { nearCopies, indices } = await findNeighbors(pixels(images), pixels(learnt));
  console.log(
    `| ${scale} | ${percent(category(seen))} | ${percent(retrieval(rows))} | ` +
      `${percent(nearCopies)} |`,
  );
  if (!flags.out) continue;
  const each = sizeOf(images.shape), shown = Math.min(64, images.count);
  const near = new Float32Array(2 * shown * each), own = images.data.subarray(0, shown * each);
  for (let i = 0; i < shown; i++) {
    near.set(images.data.subarray(i * each, (i + 1) * each), 2 * i * each);
    near.set(learnt.data.subarray(indices[i] * each, (indices[i] + 1) * each), (2 * i + 1) * each);
  }
  const draw = async (name: string, count: number, data: Float32Array<ArrayBuffer>) =>
    await Deno.writeFile(
      join(String(flags.out), `${name}-${scale}.png`),
      await encodePng(drawGrid({ ...images, count, data }), {}),
    );
  await Deno.mkdir(String(flags.out), { recursive: true });
  await draw("held-out", shown, own.slice());
  await draw("neighbours", 2 * shown, near);
}
console.log(`\nNames of the pictures, row by row: ${names.slice(0, 64).join("; ")}`);
