/**
 * NumPy's files: .npy, a header that is a Python literal and the elements of an array, and .npz, a
 * zip archive of those.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { sizeOf } from "../shape.ts";
import { type Bytes, decodeName, inMemory, viewOf } from "./bytes.ts";
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
  /**
   * All elements as numbers.
   *
   * @throws {InputError} If they are none, or cannot be read.
   */
  values(): Float32Array | Float64Array;
  /** All elements, where they are text. */
  texts?(): string[];
  /** Why there are neither numbers nor text, where that is known before. */
  readonly problem?: string;
}

const MAGIC = "\x93NUMPY";

type Get<T> = (view: DataView<ArrayBuffer>, at: number, little: boolean) => T;

/** Element types by their letter and size: how numbers are read. */
export const numpyTypes: Record<string, Get<number>> = {
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

/** Elements that are text, in UTF-32 or in bytes: how they are read. */
const textTypes: Record<string, (size: number) => Get<string>> = {
  U: (size) => (view, at, little) => {
    let text = "";
    for (let i = 0; i < size; i += 4) {
      const code = view.getUint32(at + i, little);
      text += String.fromCodePoint(code > 0x10ffff ? 0xfffd : code);
    }
    return text.replace(/\0+$/, "");
  },
  S: (size) => ({ buffer, byteOffset }, at) =>
    decodeName(new Uint8Array(buffer, byteOffset + at, size)).replace(/\0+$/, ""),
};

/** Longer headers than this are refused; NumPy's own limit is 10,000. */
const MAX_HEADER = 65536;
/** More axes than NumPy has. */
const MAX_RANK = 64;

/**
 * Reads a .npy file.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is no such file, or is shorter or longer than it says.
 */
export function readNpy(bytes: Bytes, what: string, name = "images"): StoredArray {
  const bad = (why: string) => new InputError(`Cannot read ${what} as npy: ${why}`);
  const { type, little, isFortran, shape, offset } = readHeader(bytes, bad);
  const get = Object.hasOwn(numpyTypes, type) ? numpyTypes[type] : undefined;
  const getText = /^[US][1-9]\d*$/.test(type) ? textTypes[type[0]](sizeOfType(type)) : undefined;
  const unread = { name, shape, isBytes: false, bytes, offset };
  if (!get && !getText) return withoutElements(unread, bad(explainType(type)));
  const count = sizeOf(shape), size = sizeOfType(type), total = count * size;
  if (!Number.isSafeInteger(total)) throw bad(`its shape ${shape.join("x")} is too large`);
  if (bytes.length - offset !== total) {
    const [needed, there] = formatBytePair(total, Math.max(0, bytes.length - offset));
    throw bad(`${shape.join("x")} of ${type} are ${needed}, but there are ${there}`);
  }
  const isTurned = isFortran && shape.filter((n) => n > 1).length > 1;
  const data = isTurned
    ? { bytes: inMemory(toRowMajor(bytes.read(offset, offset + total), shape, size)), offset: 0 }
    : { bytes, offset };
  const each = <T>(get: Get<T>) => {
    const view = viewOf(data.bytes.read(data.offset, data.offset + total));
    return (_: unknown, i: number) => get(view, i * size, little);
  };
  return {
    ...{ name, shape, isBytes: type === "u1", ...data },
    ...(getText ? { texts: () => Array.from({ length: count }, each(getText)) } : {}),
    values() {
      if (!get) throw bad("its elements are text, not numbers");
      return Float64Array.from({ length: count }, each(get));
    },
  };
}

/** An array of which no element can be had. */
function withoutElements(
  array: Omit<StoredArray, "values" | "texts" | "problem">,
  error: InputError,
): StoredArray {
  const values = () => {
    throw error;
  };
  return { ...array, values, problem: error.message };
}

/** Bytes of an element of numbers or text. */
const sizeOfType = (type: string) => Number(type.slice(1)) * (type[0] === "U" ? 4 : 1);

function explainType(type: string): string {
  if (type === "O") {
    return "its elements are Python objects, which could run any code; save plain numbers or text, " +
      "and pictures of different sizes as files";
  }
  if (type === "records") return "its elements are records; save each of their fields by itself";
  return `its elements are of type ${type.slice(0, 40)}, not one of ${
    Object.keys(numpyTypes).join(", ")
  }`;
}

/** What a header says, as all versions of NumPy and Python write it. */
function readHeader(bytes: Bytes, bad: (why: string) => InputError) {
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
  const field = (name: string, value: string) =>
    header.match(new RegExp(`(["'])${name}\\1\\s*:\\s*${value}`))?.slice(2);
  const descr = field("descr", `(?:[bu]?(["'])(.*?)\\2|\\[)`);
  const order = field("fortran_order", "(True|False)");
  // Python 2 marks some whole numbers as long.
  const sizes = field("shape", "\\(([\\dL,\\s]*)\\)")?.[0].trim().replace(/,$/, "").split(",");
  const shape = sizes?.map((text) => text.trim()).filter((text) => text || sizes.length > 1);
  if (!descr || !order || !shape?.every((text) => /^\d+L?$/.test(text))) {
    throw bad("its header is damaged");
  }
  if (shape.length > MAX_RANK) throw bad(`it has ${shape.length} axes`);
  const [, mark, type] = (descr[1] ?? "").match(/^([<>|=]?)(.*)$/)!;
  return {
    ...{ type: descr[1] === undefined ? "records" : shortType(type), little: mark !== ">" },
    ...{ isFortran: order[0] === "True", offset: at + length },
    shape: shape.map((text) => parseInt(text)),
  };
}

/** A type by its letter and size, which NumPy reads by its name as well. */
function shortType(type: string): string {
  const [, name, bits] = type.match(/^(u?int|float)(\d+)$/) ?? [];
  if (name) return name.replace(/nt|loat/, "").replace("ui", "u") + Number(bits) / 8;
  return type === "bool" || type === "?" ? "b1" : type;
}

/** Elements in the order in which the last index changes first, of those where the first one does. */
export function toRowMajor(
  bytes: Uint8Array<ArrayBuffer>,
  shape: readonly number[],
  size: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length), last = shape.length - 1;
  const strides = shape.map((_, axis) => size * sizeOf(shape.slice(0, axis)));
  let to = 0;
  const copy = (axis: number, from: number) => {
    for (let i = 0, at = from; i < shape[axis]; i++, at += strides[axis]) {
      if (axis < last) copy(axis + 1, at);
      else for (let k = 0; k < size; k++) out[to++] = bytes[at + k];
    }
  };
  copy(0, 0);
  return out;
}

/**
 * Reads a .npz file. Of an array that cannot be read it gives the problem.
 *
 * @param isWanted Which arrays are read, by their names; by default all.
 * @throws {InputError} If it is no zip archive.
 */
export async function readNpz(
  bytes: Bytes,
  what: string,
  isWanted: (name: string) => boolean = () => true,
): Promise<StoredArray[]> {
  const arrays: StoredArray[] = [];
  for (const entry of await readZip(bytes, what)) {
    const name = entry.name.slice(0, -4);
    if (!entry.name.endsWith(".npy") || !isWanted(name)) continue;
    try {
      const file = inMemory(await extract(bytes, entry, what));
      arrays.push(readNpy(file, `${entry.name} in ${what}`, name));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const nothing = { bytes: inMemory(new Uint8Array()), offset: 0 };
      arrays.push(withoutElements({ name, shape: [], isBytes: false, ...nothing }, error));
    }
  }
  return arrays;
}
