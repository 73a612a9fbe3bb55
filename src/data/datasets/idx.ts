/**
 * The IDX format of MNIST and its relatives: big-endian, a magic number that names element type and
 * rank, the sizes, the data.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { Dataset } from "../dataset.ts";
import { pictureDataset, type Pictures } from "../pictures.ts";
import { arrayPictures } from "./array.ts";
import { inMemory, viewOf } from "../../formats/bytes.ts";
import { gunzip, isGzip } from "../../formats/gzip.ts";
import { formatBytePair, formatBytes } from "../../units.ts";

/** An array of unsigned bytes. */
export interface IdxArray {
  /** Its sizes, the slowest axis first. */
  readonly shape: readonly number[];
  /** Its elements in row-major order. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/**
 * Reads an IDX file of unsigned bytes, raw or gzipped.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is no such file, or shorter or longer than it says.
 *
 * @example
 * ```ts
 * import { readIdx } from "@x/ddpm/data";
 *
 * const file = new Uint8Array([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]);
 * console.log((await readIdx(file, "two labels")).data); // [7, 9]
 * ```
 */
export async function readIdx(
  bytes: Uint8Array<ArrayBuffer>,
  what: string,
): Promise<IdxArray> {
  const bad = (why: string) => new InputError(`Cannot read ${what} as IDX: ${why}`);
  if (isGzip(bytes)) {
    bytes = await gunzip(inMemory(bytes), `Cannot read ${what} as IDX`);
  }
  if (bytes.length < 4) throw bad(`${formatBytes(bytes.length)} are too few`);
  const view = viewOf(bytes);
  const magic = view.getUint32(0), rank = magic & 0xff;
  if (magic >>> 8 !== 8) {
    throw bad(`its magic number is 0x${magic.toString(16).padStart(8, "0")}, not 0x0000080N`);
  }
  const start = 4 + 4 * rank;
  if (bytes.length < start) throw bad(`${formatBytes(bytes.length)} are too few for ${rank} sizes`);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const size = shape.reduce((n, s) => n * s, 1);
  if (bytes.length - start !== size) {
    const [needed, there] = formatBytePair(size, bytes.length - start);
    throw bad(`${shape.join("x")} should be ${needed}, but there are ${there}`);
  }
  return { shape, data: bytes.subarray(start) };
}

/**
 * Images and labels of IDX files as a data set; bytes 0 to 255 become -1 to 1.
 *
 * @throws {InputError} If there are no images, or not as many labels, or not as many bytes.
 *
 * @example
 * ```ts
 * import { idxDataset } from "@x/ddpm/data";
 *
 * const images = { shape: [1, 2, 2], data: new Uint8Array([0, 255, 255, 0]) };
 * console.log(idxDataset("one image", images).count);
 * ```
 */
export function idxDataset(name: string, images: IdxArray, labels?: IdxArray): Dataset {
  const pictures = idxPictures(name, images, labels);
  const [, height, width] = images.shape, background = [0, 0, 0] as const;
  const format = { height, width, channels: 1, background };
  return pictureDataset(pictures, { ...format, crop: "center", flip: false, shift: 0 });
}

/**
 * Images and labels of IDX files as pictures.
 *
 * @param isTransposed Whether columns come before rows, as in EMNIST.
 * @throws {InputError} If there are no images, or not as many labels, or not as many bytes.
 *
 * @example
 * ```ts
 * import { idxPictures } from "@x/ddpm/data";
 *
 * const images = { shape: [1, 2, 2], data: new Uint8Array([0, 255, 0, 255]) };
 * console.log(await idxPictures("one letter", images, undefined, true).picture(0));
 * ```
 */
export function idxPictures(
  name: string,
  images: IdxArray,
  labels?: IdxArray,
  isTransposed = false,
): Pictures {
  const { shape: [count, height, width, ...rest], data } = images;
  const bad = (why: string) => new InputError(`Cannot use ${name}: ${why}`);
  if (!count || !height || !width || rest.length) {
    throw bad(`its images are of shape ${images.shape.join("x")}, not count x height x width`);
  }
  if (data.length !== count * height * width) {
    throw bad(`${images.shape.join("x")} images have ${formatBytes(data.length)}`);
  }
  if (labels && (labels.shape.length !== 1 || labels.data.length !== count)) {
    throw bad(`${count} images have labels of shape ${labels.shape.join("x")}`);
  }
  const order = isTransposed ? "whc" : "hwc";
  const layout = isTransposed ? { height: width, width: height } : { height, width };
  return arrayPictures(
    name,
    { count, ...layout, channels: 1, order },
    data,
    labels ? { labels: labels.data } : {},
  );
}
