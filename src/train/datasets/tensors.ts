/**
 * Pictures out of safetensors files, such as `ddpm sample --out x.safetensors` writes.
 *
 * @module
 */

import { readSafetensors, toFloat32 } from "../../model/safetensors.ts";
import type { Pictures } from "../pictures.ts";
import { picturesAmong } from "./array.ts";
import { inMemory } from "./bytes.ts";

/**
 * The pictures of a safetensors file, and their labels, found as in a .npz file.
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If it is damaged, or has no pictures.
 *
 * @example
 * ```ts
 * import { tensorPictures, writeSafetensors } from "@x/ddpm";
 *
 * const images = { name: "images", shape: [2, 3, 8, 8], values: new Float32Array(2 * 3 * 8 * 8) };
 * const { count, picture } = tensorPictures(writeSafetensors([images]), "x.safetensors");
 * console.log(count, (await picture(0)).channels); // 2 3
 * ```
 */
export function tensorPictures(bytes: Uint8Array<ArrayBuffer>, what: string): Pictures {
  const { tensors } = readSafetensors(bytes, what);
  return picturesAmong(
    what,
    [...tensors].map(([name, tensor]) => ({
      ...{ name, shape: tensor.shape, isBytes: tensor.dtype === "U8", offset: 0 },
      bytes: inMemory(tensor.bytes),
      values: () => toFloat32(tensor),
    })),
  );
}
