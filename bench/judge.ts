/**
 * An independent judge of digits, the classifier that comes with the package for `ddpm eval`, and what
 * benchmarks keep in a folder of caches.
 *
 * @module
 */

import { join } from "@std/path";
import { parseImages } from "../src/data/image_options.ts";
import { openDataset } from "../src/cli/data/data.ts";
import { makeFolder, writeWhole } from "../src/cli/terminal/files.ts";
import { Progress } from "../src/cli/terminal/progress.ts";
import { type Dataset, ImageOrder } from "../src/data/dataset.ts";
import { classifierFeatures } from "../src/evaluate/classifier_features.ts";
import { frechetDistance } from "../src/evaluate/frechet_distance.ts";
import { type Gaussian, Moments } from "../src/evaluate/moments.ts";
import type { Rows } from "../src/evaluate/rows.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../src/formats/safetensors.ts";
import type { Device } from "../src/gpu/device.ts";
import { fetchFeatures } from "../src/model/pretrained.ts";
import { sizeOf } from "../src/shape.ts";

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

/** What the judge makes of images. */
export interface Judgement {
  readonly features: Rows;
  /** The likeliest digits. */
  readonly digits: readonly number[];
  /** The share whose digit is the one that was asked for. */
  rightOf(labels: readonly number[]): number;
}

/** Mean and covariance of features. */
export function gaussianOf(features: Rows): Gaussian {
  const moments = new Moments(features.width);
  moments.add(features);
  return moments.gaussian();
}

/** The judge, and the test set that it never saw. */
export interface Judge extends Disposable {
  readonly training: Dataset;
  readonly test: Dataset;
  /** Mean and covariance of the features of the test set. */
  readonly target: Gaussian;
  /** The share of the test set that it has right. */
  readonly accuracy: number;
  /** Of images `[count, 28, 28]` in [-1, 1]. */
  look(images: Float32Array<ArrayBuffer>): Promise<Judgement>;
  /** The Fréchet distance of features to those of the test set. */
  distance(features: Rows): Promise<number>;
}

/** Opens it. */
export async function openJudge(device: Device): Promise<Judge> {
  const progress = new Progress();
  const [test, training] = await Promise.all(
    ["mnist-test", "mnist"].map((name) => openDataset(name, parseImages({}), progress)),
  );
  const extractor = await classifierFeatures(device, await fetchFeatures("mnist"));
  const look = async (data: Float32Array<ArrayBuffer>): Promise<Judgement> => {
    const count = data.length / sizeOf(test.shape), { width, classes = 0 } = extractor;
    const { features, logits } = await extractor.extract({ count, shape: test.shape, data });
    const digits = Array.from({ length: count }, (_, i) => {
      const own = logits!.subarray(classes * i, classes * (i + 1));
      return own.indexOf(Math.max(...own));
    });
    return {
      ...{ features: { count, width, data: features }, digits },
      rightOf: (labels) => digits.filter((digit, i) => digit === labels[i]).length / count,
    };
  };
  const truth = await pick(test, test.count), seen = await look(truth.images);
  const target = gaussianOf(seen.features), accuracy = seen.rightOf(truth.labels);
  return {
    ...{ training, test, target, accuracy, look },
    distance: (features) => frechetDistance(gaussianOf(features), target),
    [Symbol.dispose]: () => extractor[Symbol.dispose](),
  };
}
