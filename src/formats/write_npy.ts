/**
 * Writing of NumPy's files: .npy, and .npz of several.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import { encodeZip } from "./write_zip.ts";

/** An array to write: numbers, or one text. */
export interface NpyArray {
  /** The name that it has in a .npz file. */
  readonly name: string;
  /** Its sizes; `[]` of a text, or a single number. */
  readonly shape: readonly number[];
  /** Its elements, the last index changing first. */
  readonly values:
    | Float64Array<ArrayBuffer>
    | Float32Array<ArrayBuffer>
    | Int32Array<ArrayBuffer>
    | string;
}

/** The magic bytes, the version 1.0 and the length of the header are ten bytes. */
const HEAD = 10, ALIGNMENT = 64;

/**
 * An array as the bytes of a .npy file, which NumPy reads without pickles.
 *
 * @throws {RangeError} If it has more or fewer elements than its shape.
 */
export function encodeNpy({ name, shape, values }: NpyArray): Uint8Array<ArrayBuffer> {
  const isText = typeof values === "string";
  // A text has as many elements of four bytes as letters, but not none.
  const data = isText ? Int32Array.from(values || "\0", codePoint) : values;
  if (!isText && data.length !== sizeOf(shape)) {
    throw new RangeError(`Cannot write ${name}: ${shape.join("x")} are not ${data.length} numbers`);
  }
  const type = isText
    ? `<U${data.length}`
    : data instanceof Float64Array
    ? "<f8"
    : data instanceof Float32Array
    ? "<f4"
    : "<i4";
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${type}', 'fortran_order': False, 'shape': (${sizes}), }`;
  // Numbers start at a multiple of 64, after a line break.
  const length = Math.ceil((HEAD + text.length + 1) / ALIGNMENT) * ALIGNMENT;
  const bytes = new Uint8Array(length + data.byteLength);
  bytes.fill(0x20, 0, length).set([0x93, ...ascii("NUMPY"), 1, 0]);
  new DataView(bytes.buffer).setUint16(8, length - HEAD, true);
  bytes.set(ascii(text), HEAD);
  bytes[length - 1] = 0x0a;
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), length);
  return bytes;
}

const ascii = (text: string) => new TextEncoder().encode(text);
const codePoint = (letter: string) => letter.codePointAt(0)!;

/**
 * The parts of a .npz file, in order.
 *
 * @throws {RangeError} While its parts are made, if it is more than 4 GiB.
 */
export const encodeNpz = (arrays: readonly NpyArray[]): Iterable<Uint8Array<ArrayBuffer>> =>
  encodeZip(arrays.map((array) => ({ name: `${array.name}.npy`, bytes: encodeNpy(array) })));
