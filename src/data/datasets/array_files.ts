/**
 * Pictures in files of arrays: .npy, .npz, and safetensors as `ddpm sample --out x.safetensors`
 * writes them.
 *
 * @module
 */

import { z } from "zod";
import { isFileDType } from "../../formats/elements.ts";
import { readSafetensors, toFloat32 } from "../../formats/safetensors.ts";
import type { Pictures } from "../pictures.ts";
import { picturesAmong } from "./array.ts";
import { type Bytes, inMemory } from "../../formats/bytes.ts";
import { readNpy, readNpz } from "../../formats/npy.ts";

/** Where the header of a safetensors file says what classes are called, as a list in JSON. */
export const CLASSES_KEY = "classes";

/**
 * The pictures of a safetensors file, and their labels, found as in a .npz file. What the classes are
 * called, its header may say.
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If it is damaged, or has no pictures.
 *
 * @example
 * ```ts
 * import { writeSafetensors } from "@x/ddpm";
 * import { tensorPictures } from "@x/ddpm/data";
 *
 * const images = { name: "images", shape: [2, 3, 8, 8], values: new Float32Array(2 * 3 * 8 * 8) };
 * const { count, picture } = tensorPictures(writeSafetensors([images]), "x.safetensors");
 * console.log(count, (await picture(0)).channels); // 2 3
 * ```
 */
export function tensorPictures(bytes: Uint8Array<ArrayBuffer>, what: string): Pictures {
  const { tensors, metadata } = readSafetensors(bytes, what);
  const pictures = picturesAmong(
    what,
    [...tensors].map(([name, tensor]) => ({
      ...{ name, shape: tensor.shape, isBytes: tensor.dtype === "U8", offset: 0 },
      bytes: inMemory(tensor.bytes),
      values: () => toFloat32(tensor, `${name} in ${what}`),
      ...(isFileDType(tensor.dtype)
        ? {}
        : { problem: `Cannot read ${name} in ${what}: its elements are of type ${tensor.dtype}` }),
    })),
  );
  const classes = pictures.labels && namesIn(metadata[CLASSES_KEY]);
  return classes ? { ...pictures, classes } : pictures;
}

/** What a header calls classes; nothing if it is no list of names. */
function namesIn(text = ""): readonly string[] | undefined {
  try {
    return z.array(z.string()).safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/**
 * The pictures of a .npy file: count × height × width, or with 1 to 4 channels, last or first; bytes,
 * or numbers in [-1, 1], [0, 1] or [0, 255].
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If it is damaged, or no array of pictures.
 *
 * @example
 * ```ts
 * import { npyPictures } from "@x/ddpm/data";
 *
 * const header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), }\n";
 * const file = new Uint8Array([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length, 0,
 *   ...new TextEncoder().encode(header), 0, 255, 255, 0]);
 * console.log(npyPictures(file, "x.npy").count); // 1
 * ```
 */
export function npyPictures(bytes: Uint8Array<ArrayBuffer> | Bytes, what: string): Pictures {
  const source = bytes instanceof Uint8Array ? inMemory(bytes) : bytes;
  return picturesAmong(what, [readNpy(source, what)]);
}

/**
 * The pictures of a .npz file, and their labels: the array `images`, or else the only one of rank 3
 * or 4, and `labels`, or else the only one of as many numbers. Labels may be numbers, text, or a 1
 * among zeros for each image; `class_names` may say what numbers stand for. Other arrays and files
 * may hold anything.
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If it is damaged, or has no pictures, or several arrays could be they.
 *
 * @example
 * ```ts
 * import { InputError } from "@x/ddpm";
 * import { npzPictures } from "@x/ddpm/data";
 *
 * try {
 *   await npzPictures(new Uint8Array(100), "x.npz");
 * } catch (error) {
 *   console.log(error instanceof InputError); // true
 * }
 * ```
 */
export async function npzPictures(
  bytes: Uint8Array<ArrayBuffer> | Bytes,
  what: string,
): Promise<Pictures> {
  const source = bytes instanceof Uint8Array ? inMemory(bytes) : bytes;
  return picturesAmong(what, await readNpz(source, what));
}
