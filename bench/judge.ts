/**
 * An independent judge of digits: the classifier of MNIST, trained once and kept in a folder of caches.
 *
 * @module
 */

import { join } from "@std/path";
import { parseImages } from "../src/cli/commands/image_options.ts";
import { openDataset } from "../src/cli/data/data.ts";
import { makeFolder, writeWhole } from "../src/cli/terminal/files.ts";
import { Progress } from "../src/cli/terminal/progress.ts";
import { type Dataset, ImageOrder } from "../src/data/dataset.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../src/formats/safetensors.ts";
import type { Device } from "../src/gpu/device.ts";
import { sizeOf } from "../src/shape.ts";
import { Classifier, trainClassifier } from "./classifier.ts";

const home = Deno.env.get("HOME") ?? ".";

/** Where benchmarks keep what takes them long. */
export const benchCache: string = join(
  Deno.env.get("XDG_CACHE_HOME") ?? join(home, ".cache"),
  "ddpm-bench",
);

/** What is kept of an array under a name; it is made, and kept, if it is not there. */
export async function keep(
  path: string,
  make: () => Promise<Float32Array<ArrayBuffer>>,
): Promise<{ values: Float32Array; seconds: number }> {
  try {
    const { tensors, metadata } = readSafetensors(await Deno.readFile(path), path);
    return { values: toFloat32(tensors.get("values")!), seconds: Number(metadata.seconds) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const began = performance.now(), values = await make();
  const seconds = (performance.now() - began) / 1000;
  const tensor = { name: "values", shape: [values.length], values };
  await makeFolder(join(path, ".."));
  await writeWhole(path, writeSafetensors([tensor], { seconds: String(seconds) }));
  return { values, seconds };
}

/** Images of a data set in an order of chance: those of MNIST are not alike from end to end. */
export async function pick(data: Dataset, count: number) {
  const size = sizeOf(data.shape), images = new Float32Array(count * size);
  const order = new ImageOrder(data.count, 1);
  const picked = Array.from({ length: count }, (_, i) => order.at(i));
  for (const [i, index] of picked.entries()) await data.read(index, images, i * size);
  return { images, labels: picked.map((index) => data.labels![index]) };
}

/** The classifier, and the test set that it never saw. */
export async function openJudge(
  device: Device,
  cache: string,
): Promise<{ classifier: Classifier; training: Dataset; test: Dataset; accuracy: number }> {
  const progress = new Progress();
  const [test, training] = await Promise.all(
    ["mnist-test", "mnist"].map((name) => openDataset(name, parseImages({}), progress)),
  );
  const { values } = await keep(
    join(cache, "classifier.safetensors"),
    () => trainClassifier(device, training, (text) => progress.say(text)),
  );
  const classifier = await Classifier.create(device, values);
  const truth = await pick(test, test.count);
  const { digits } = await classifier.classify(truth.images);
  const accuracy = digits.filter((digit, i) => digit === truth.labels[i]).length / test.count;
  if (accuracy < 0.9) {
    throw new Error(`The classifier kept in ${cache} is not one of this version: remove it`);
  }
  return { classifier, training, test, accuracy };
}
