/**
 * CIFAR-10 and CIFAR-100: records of one or two labels and 32 × 32 pixels, all reds first, then greens,
 * then blues; in the version for Python the same in pickles.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { inMemory } from "../../formats/bytes.ts";
import { readPickle } from "../../formats/pickle.ts";
import { arrayFunctions, PickledArray } from "../../formats/pickled_arrays.ts";
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
  /** Of the version for Python, whose files are pickles: what they call labels, and names of classes. */
  readonly pickled?: { readonly labels: readonly string[]; readonly classes: string };
}

const batches = [1, 2, 3, 4, 5].map((i) => `data_batch_${i}`);

/** What is published. */
export const cifarVersions: readonly CifarVersion[] = [
  {
    name: "cifar10",
    files: batches.map((name) => `${name}.bin`),
    classes: "batches.meta.txt",
    labels: 1,
  },
  { name: "cifar100", files: ["train.bin"], classes: "fine_label_names.txt", labels: 2 },
  {
    ...{ name: "cifar10", files: batches, classes: "batches.meta", labels: 1 },
    pickled: { labels: ["labels"], classes: "label_names" },
  },
  {
    ...{ name: "cifar100", files: ["train"], classes: "meta", labels: 2 },
    pickled: { labels: ["coarse_labels", "fine_labels"], classes: "fine_label_names" },
  },
];

/**
 * The version of which there are files, by their names. The names of those for Python are common words,
 * so that all of them must be there.
 */
export const findCifar = (has: (name: string) => boolean): CifarVersion | undefined =>
  cifarVersions.find(({ files, classes, pickled }) =>
    pickled ? [...files, classes].every(has) : has(files[0])
  );

/** Other sets of the same authors and form: ImageNet in 32 × 32, and CIFAR's without its other files. */
const PICKLED = /(^|\/)((train_|val_)?data_batch_\d+|test_batch|cifar-100-python\/\w+)$/;

/** What to do about files of pickles that are no whole set, if there are any. */
export function explainPickles(paths: readonly string[]): string | undefined {
  const found = paths.find((path) => PICKLED.test(path));
  return found &&
    `${found} is pickled; of pickles only all of CIFAR-10 or CIFAR-100 are read, by the folder or ` +
      "archive that they were published in; save other images with numpy.savez";
}

/** The records of a file that is a pickle. */
function unpickleRecords(
  { labels: keys }: NonNullable<CifarVersion["pickled"]>,
  bytes: Uint8Array<ArrayBuffer>,
  what: string,
): Uint8Array<ArrayBuffer> {
  const batch = unpickle(bytes, what), data = batch.get("data");
  const bad = (why: string) => new InputError(`Cannot use ${what}: ${why}`);
  if (!(data instanceof PickledArray) || data.type !== "u1" || data.shape[1] !== PIXELS) {
    throw bad(`it has no data of 32x32x3 bytes an image`);
  }
  const [count] = data.shape, pixels = data.bytes(), record = keys.length + PIXELS;
  const records = new Uint8Array(count * record);
  keys.forEach((key, head) => {
    const labels: unknown = batch.get(key);
    if (!Array.isArray(labels) || labels.length !== count) {
      throw bad(`it has no ${key} for ${count} images`);
    }
    labels.forEach((label, i) => {
      if (!Number.isInteger(label) || label < 0 || label > 255) {
        throw bad(`image ${i} has the label ${label}`);
      }
      records[i * record + head] = label;
    });
  });
  for (let i = 0; i < count; i++) {
    records.set(pixels.subarray(i * PIXELS, (i + 1) * PIXELS), i * record + keys.length);
  }
  return records;
}

/** The dictionary in a file. */
function unpickle(bytes: Uint8Array<ArrayBuffer>, what: string): Map<unknown, unknown> {
  const { value } = readPickle(inMemory(bytes), what, { functions: arrayFunctions });
  if (value instanceof Map) return value;
  throw new InputError(`Cannot use ${what}: it holds no dictionary`);
}

/**
 * Pictures and classes out of the files of a version, be they records or pickles.
 *
 * @throws {InputError} If a file is damaged, or no file of the version.
 */
export function readCifar(
  version: CifarVersion,
  files: readonly Uint8Array<ArrayBuffer>[],
  classes?: Uint8Array<ArrayBuffer>,
): Pictures {
  const { name, pickled } = version;
  if (!pickled) return cifarPictures(name, files, classes);
  const names = classes && unpickle(classes, version.classes).get(pickled.classes);
  const lines = Array.isArray(names) ? names.join("\n") : "";
  return cifarPictures(
    name,
    files.map((file, i) => unpickleRecords(pickled, file, version.files[i])),
    new TextEncoder().encode(lines),
  );
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
