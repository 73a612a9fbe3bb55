/**
 * Files of PyTorch made by hand, as `torch.save` makes them of a `state_dict()`.
 *
 * @module
 */

import type { NamedTensor } from "../src/formats/safetensors.ts";
import { denseStrides } from "../src/shape.ts";
import { makeZip } from "./pictures.ts";

const ascii = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

/** Text in a pickle, which has no quotation marks in it. */
export const pickled = (text: string): string => `S'${text}'\n`;

/** A tuple of whole numbers in a pickle. */
const tuple = (numbers: readonly number[]) => `(${numbers.map((n) => `I${n}\n`).join("")}t`;

/** A tensor in a pickle, whose numbers are elsewhere. */
export const pickledTensor = (key: string, shape: readonly number[], count: number): string =>
  "ctorch._utils\n_rebuild_tensor_v2\n(" +
  `(${pickled("storage")}ctorch\nFloatStorage\n${pickled(key)}${pickled("cpu")}I${count}\ntQ` +
  `I0\n${tuple(shape)}${tuple(denseStrides(shape))}I00\nNtR`;

/** A zip archive of a pickle and other files. */
export const torchArchive = (
  pickle: string,
  files: Readonly<Record<string, Uint8Array>> = {},
): Uint8Array<ArrayBuffer> => makeZip({ "archive/data.pkl": ascii(pickle), ...files });

/** A file of 32-bit floats by name. */
export function makeTorch(tensors: readonly NamedTensor[]): Uint8Array<ArrayBuffer> {
  const items = tensors.map(({ name, shape, values }, i) =>
    pickled(name) + pickledTensor(String(i), shape, values.length)
  );
  const files = tensors.map(({ values: { buffer, byteOffset, byteLength } }, i) => [
    `archive/data/${i}`,
    new Uint8Array(buffer, byteOffset, byteLength),
  ]);
  return torchArchive(`(${items.join("")}d.`, Object.fromEntries(files));
}
