/**
 * The binary version of CIFAR-10 and CIFAR-100: records of one or two labels and 32 × 32 pixels, all
 * reds first, then greens, then blues.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Pictures } from "../pictures.ts";
import { arrayPictures } from "./array.ts";

/** The files of a version, as they are in its archive. */
export interface CifarVersion {
  /** What it is called. */
  readonly name: "cifar10" | "cifar100";
  /** Files with the pictures to train on. */
  readonly files: readonly string[];
  /** The file with the names of the classes. */
  readonly classes: string;
  /** Labels before the pixels of each record; the last one is the class. */
  readonly labels: number;
}

/** What is published. */
export const cifarVersions: readonly CifarVersion[] = [
  {
    name: "cifar10",
    files: [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
    classes: "batches.meta.txt",
    labels: 1,
  },
  { name: "cifar100", files: ["train.bin"], classes: "fine_label_names.txt", labels: 2 },
];

/** Files of the version for Python, also that of ImageNet in 32 x 32, and their places. */
const PICKLED =
  /(^|\/)(((train_|val_)?data_batch_\d+|test_batch|batches\.meta)|cifar-100-python\/\w+)$/;

/**
 * What to do about files of the version that is published for Python, if there are any: those are
 * pickles, programs in fact, which are not run here.
 */
export function explainPickles(paths: readonly string[]): string | undefined {
  const found = paths.find((path) => PICKLED.test(path));
  if (!found) return undefined;
  const version = found.includes("cifar-100") ? "cifar-100" : "cifar-10";
  return `${found} is pickled, which only Python reads and which could run any code; take the binary ` +
    `version, ${version}-binary.tar.gz` +
    (version === "cifar-10" ? ", as --data cifar10 does" : "") +
    ", or save its images with numpy.savez";
}

const SIDE = 32, PIXELS = 3 * SIDE * SIDE;

/**
 * Pictures and classes out of the files of CIFAR-10 or CIFAR-100.
 *
 * @param files The version's files, in their order.
 * @param classes The file with the names of the classes.
 * @throws {InputError} If a file is no whole number of records, or has a label that is no class.
 *
 * @example
 * ```ts
 * import { cifarPictures } from "@x/ddpm/data";
 *
 * const file = new Uint8Array(3073 * 2).fill(200).fill(3, 0, 1).fill(5, 3073, 3074);
 * const { count, labels } = cifarPictures("cifar10", [file]);
 * console.log(count, labels); // 2 [3, 5]
 * ```
 */
export function cifarPictures(
  version: CifarVersion["name"],
  files: readonly Uint8Array<ArrayBuffer>[],
  classes?: Uint8Array<ArrayBuffer>,
): Pictures {
  const { labels: heads, files: names } = cifarVersions.find(({ name }) => name === version)!;
  const record = heads + PIXELS, limit = version === "cifar10" ? 10 : 100;
  files.forEach((file, i) => {
    if (!file.length || file.length % record) {
      throw new InputError(
        `Cannot use ${version}: ${names[i] ?? `file ${i}`} has ` +
          `${file.length.toLocaleString("en")} bytes, which is no whole number of records of ` +
          `${record.toLocaleString("en")}`,
      );
    }
  });
  const all = new Uint8Array(files.reduce((n, file) => n + file.length, 0));
  files.reduce((at, file) => (all.set(file, at), at + file.length), 0);
  const count = all.length / record;
  const labels = Uint8Array.from({ length: count }, (_, i) => all[i * record + heads - 1]);
  const odd = labels.findIndex((label) => label >= limit);
  if (odd >= 0) {
    throw new InputError(
      `Cannot use ${version}: image ${odd} has the label ${labels[odd]}, but there are ${limit} ` +
        "classes",
    );
  }
  const layout = { count, height: SIDE, width: SIDE, channels: 3, order: "chw" } as const;
  const named = classes && new TextDecoder().decode(classes).split("\n").map((line) => line.trim())
    .filter((line) => line);
  return arrayPictures(version, { ...layout, offset: heads, stride: record }, all, {
    labels,
    ...(named?.length === limit ? { classes: named } : {}),
  });
}
