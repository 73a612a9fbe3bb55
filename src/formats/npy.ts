/**
 * NumPy's files: .npy, a header that is a Python literal and the elements of an array, and .npz, a
 * zip archive of those.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { sizeOf } from "../shape.ts";
import { type Bytes, inMemory, viewOf } from "./bytes.ts";
import { extract, readZip } from "./zip.ts";
import { formatBytePair, formatBytes } from "../units.ts";

/** An array in a file: a shape, and its elements as bytes or as floats of whatever range. */
export interface StoredArray {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether elements are whole numbers of one byte, to be taken as they are. */
  readonly isBytes: boolean;
  /** The bytes of a file and where in them the array starts, for arrays of bytes. */
  readonly bytes: Bytes;
  readonly offset: number;
  /** All elements as numbers. */
  values(): Float32Array | Float64Array;
}

const MAGIC = "\x93NUMPY";

/** Element types by their letter and size. */
const types: Record<string, (view: DataView, at: number, little: boolean) => number> = {
  b1: (view, at) => view.getUint8(at),
  u1: (view, at) => view.getUint8(at),
  i1: (view, at) => view.getInt8(at),
  u2: (view, at, little) => view.getUint16(at, little),
  i2: (view, at, little) => view.getInt16(at, little),
  u4: (view, at, little) => view.getUint32(at, little),
  i4: (view, at, little) => view.getInt32(at, little),
  u8: (view, at, little) => Number(view.getBigUint64(at, little)),
  i8: (view, at, little) => Number(view.getBigInt64(at, little)),
  f2: (view, at, little) => view.getFloat16(at, little),
  f4: (view, at, little) => view.getFloat32(at, little),
  f8: (view, at, little) => view.getFloat64(at, little),
};

/** Longer headers than this are refused; NumPy's own limit is 10,000. */
const MAX_HEADER = 65536;

/**
 * Reads a .npy file.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is no such file, is shorter or longer than it says, or holds objects.
 */
export function readNpy(bytes: Bytes, what: string, name = "images"): StoredArray {
  const bad = (why: string) => new InputError(`Cannot read ${what} as npy: ${why}`);
  const start = bytes.read(0, 12), view = viewOf(start);
  if (start.length < 10) throw bad(`${formatBytes(start.length)} are too few`);
  if (String.fromCharCode(...start.subarray(0, 6)) !== MAGIC) {
    throw bad("it does not start as npy files do");
  }
  const version = start[6], at = version === 1 ? 10 : 12;
  if (version < 1 || version > 3 || start.length < at) throw bad(`its version is ${version}`);
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER) throw bad(`a header of ${formatBytes(length)} is too long`);
  const header = new TextDecoder("latin1").decode(bytes.read(at, at + length));
  const descr = header.match(/'descr'\s*:\s*'([<>|=])([a-zA-Z])(\d+)'/);
  const order = header.match(/'fortran_order'\s*:\s*(True|False)/);
  const sizes = header.match(/'shape'\s*:\s*\(([\d,\s]*)\)/);
  if (!order || !sizes) throw bad("its header is damaged");
  if (!descr) throw bad("its elements are no plain numbers");
  const type = descr[2] + descr[3], get = types[type];
  if (!get) throw bad(`its elements are of type ${type}, not one of ${Object.keys(types)}`);
  const shape = sizes[1].split(",").map((n) => n.trim()).filter((n) => n).map(Number);
  const count = sizeOf(shape), size = Number(descr[3]), offset = at + length;
  if (!Number.isSafeInteger(count * size)) throw bad(`its shape ${shape.join("x")} is too large`);
  if (bytes.length - offset !== count * size) {
    const [needed, there] = formatBytePair(count * size, Math.max(0, bytes.length - offset));
    throw bad(`${shape.join("x")} of ${type} are ${needed}, but there are ${there}`);
  }
  if (order[1] === "True" && shape.filter((n) => n > 1).length > 1) {
    throw bad("it is in Fortran's order; save it with numpy.ascontiguousarray");
  }
  return {
    ...{ name, shape, isBytes: type === "u1", bytes, offset },
    values() {
      const all = viewOf(bytes.read(offset, offset + count * size)), little = descr[1] !== ">";
      return Float64Array.from({ length: count }, (_, i) => get(all, i * size, little));
    },
  };
}

/**
 * Reads a .npz file, all of it.
 *
 * @throws {InputError} If it, or one of its arrays, cannot be read.
 */
export async function readNpz(bytes: Bytes, what: string): Promise<StoredArray[]> {
  const arrays: StoredArray[] = [];
  for (const entry of readZip(bytes, what)) {
    if (!entry.name.endsWith(".npy")) continue;
    const file = await extract(bytes, entry, what);
    arrays.push(readNpy(inMemory(file), `${entry.name} in ${what}`, entry.name.slice(0, -4)));
  }
  return arrays;
}
