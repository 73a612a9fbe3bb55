/**
 * Files of PyTorch, `.pt`, `.pth`, `.ckpt` and `.bin`: a zip archive of a pickle and the numbers of
 * tensors; before version 1.6 pickles with the numbers behind them. Nothing in them is run, see
 * `pickle.ts`; the numbers stay where they are until they are asked for.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { denseStrides, sizeOf } from "../shape.ts";
import { formatBytes } from "../units.ts";
import { asBytes, type Bytes, inMemory } from "./bytes.ts";
import { elementSize, type FileDType } from "./elements.ts";
import { PickledArray } from "./pickled_arrays.ts";
import { readPickle } from "./pickle.ts";
import { readSafetensors, type StoredTensor } from "./safetensors.ts";
import { type TorchStorage, torchSurroundings, TorchTensor } from "./torch_tensors.ts";
import { extract, isDeflated, readZip, storedAt } from "./zip.ts";

/** What a file of PyTorch holds. */
export interface TorchFile {
  /** All tensors by the keys that lead to them, joined by dots. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Numbers and texts that are in there too, such as the step of a training, by their keys. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Longer pickles than this do not belong to models: the numbers of tensors are not in them. */
const MOST_PICKLE = 2 ** 27;
/** More than this out of a file of so many bytes is taken for a trap: weights hardly compress. */
const MOST_UNPACKED = (length: number): number => 16 * length + 2 ** 26;
/** What the older format starts with, and the version that is read. */
const MAGIC = 0x1950a86a20f9469cfc6cn, VERSION = 1001;

/** Whether a file may be one of PyTorch: a zip archive, or a pickle of the protocols 2 to 5. */
function isTorch(bytes: Bytes): boolean {
  const start = bytes.read(0, 9), [a, b, c, d] = start;
  // The length of a header in less than 32 bits, and what a header begins with.
  if (start.subarray(4, 8).every((byte) => byte === 0) && start[8] === 0x7b) return false;
  return a === 0x50 && b === 0x4b && c === 3 && d === 4 || a === 0x80 && b >= 2 && b <= 5;
}

/**
 * Reads a file of tensors, safetensors or one of PyTorch, whichever it is by what it starts with.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is neither, or damaged.
 *
 * @example
 * ```ts
 * import { readTensorFile, writeSafetensors } from "@x/ddpm";
 *
 * const file = writeSafetensors([{ name: "x", shape: [2], values: new Float32Array([1, 2]) }]);
 * console.log((await readTensorFile(file)).tensors.get("x")?.dtype); // F32
 * ```
 */
export async function readTensorFile(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "file",
): Promise<TorchFile> {
  const bytes = asBytes(file);
  return isTorch(bytes) ? await readTorch(bytes, what) : readSafetensors(bytes, what);
}

/**
 * Reads a file: what there is at once, tensors when they are asked for.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is no such file, damaged, or calls what is not for tensors.
 *
 * @example
 * ```ts
 * import { readTorch } from "@x/ddpm";
 *
 * const file = new TextEncoder().encode("(S'step'\nI7\nd.");
 * console.log((await readTorch(file)).metadata); // { step: "7" }
 * ```
 */
export async function readTorch(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "file",
): Promise<TorchFile> {
  const bytes = asBytes(file);
  return bytes.read(0, 1)[0] === 0x50 ? await readArchive(bytes, what) : readPickles(bytes, what);
}

/** A file of version 1.6 or later. */
async function readArchive(bytes: Bytes, what: string): Promise<TorchFile> {
  const bad = (why: string) => new InputError(`Cannot read ${what} as a file of PyTorch: ${why}`);
  const all = await readZip(bytes, what),
    entries = new Map(all.map((entry) => [entry.name, entry]));
  if (entries.size < all.length) throw bad("two of its files have the same name");
  const outside = all.find(({ name }) => /^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)/.test(name));
  if (outside) throw bad(`it has a file ${outside.name.slice(0, 100)}, outside of its folder`);
  const pickle = [...entries.values()].find(({ name }) => /^([^/]{1,200}\/)?data\.pkl$/.test(name));
  if (!pickle) throw bad("it is a zip archive without data.pkl");
  if (pickle.size > MOST_PICKLE) throw bad(`a data.pkl of ${formatBytes(pickle.size)} is too long`);
  const top = pickle.name.slice(0, -"data.pkl".length), order = entries.get(`${top}byteorder`);
  if (order && order.size > 16) throw bad("its byteorder is damaged");
  if (order && new TextDecoder().decode(await extract(bytes, order, what)).trim() !== "little") {
    throw bad("its numbers have their highest byte first");
  }
  const surroundings = torchSurroundings();
  const { value } = readPickle(
    inMemory(await extract(bytes, pickle, what)),
    what,
    surroundings,
  );
  // PyTorch compresses nothing, but reads what other programs compressed.
  const unpacked = new Map<string, Bytes>(), most = MOST_UNPACKED(bytes.length);
  let total = 0;
  for (const { key } of surroundings.storages.values()) {
    const entry = entries.get(`${top}data/${key}`);
    if (!entry || !isDeflated(entry)) continue;
    if ((total += entry.size) > most) {
      throw bad(
        `it unpacks to more than ${formatBytes(most)}, but has ${formatBytes(bytes.length)}`,
      );
    }
    unpacked.set(key, inMemory(await extract(bytes, entry, what)));
  }
  return collect(value, what, ({ key, dtype, count }) => {
    const entry = entries.get(`${top}data/${key}`), size = count * elementSize(dtype);
    if (!entry) throw bad(`it lacks ${top}data/${key}`);
    if (entry.size !== size) {
      throw bad(`${entry.name} has ${formatBytes(entry.size)}, not ${formatBytes(size)}`);
    }
    const file = unpacked.get(key);
    return file ? { file, start: 0 } : { file: bytes, start: storedAt(bytes, entry, what) };
  });
}

/** A file of a version before 1.6, or a pickle of arrays. */
function readPickles(bytes: Bytes, what: string): TorchFile {
  const bad = (why: string) => new InputError(`Cannot read ${what} as a file of PyTorch: ${why}`);
  const surroundings = torchSurroundings();
  let end = 0;
  const next = (): unknown => {
    const read = readPickle(bytes, what, surroundings, end);
    end = read.end;
    return read.value;
  };
  const first = next();
  if (first !== MAGIC) {
    return collect(first, what, () => {
      throw bad("the numbers of its tensors are not in it");
    });
  }
  const version = next(), system = next();
  if (version !== VERSION) throw bad(`its version is ${version}, not ${VERSION}`);
  if (!(system instanceof Map) || system.get("little_endian") !== true) {
    throw bad("its numbers have their highest byte first");
  }
  const value = next(), keys = next(), starts = new Map<string, number>();
  if (!Array.isArray(keys)) throw bad("its list of storages is damaged");
  for (const key of keys) {
    const storage = surroundings.storages.get(key);
    if (!storage) throw bad(`there is a storage that nothing uses`);
    const size = storage.count * elementSize(storage.dtype);
    const head = bytes.read(end, end + 8);
    const count = head.length === 8
      ? new DataView(head.buffer, head.byteOffset).getBigInt64(0, true)
      : -1n;
    if (count !== BigInt(storage.count) || end + 8 + size > bytes.length) {
      throw bad(`the storage ${key} is damaged, or the file truncated`);
    }
    starts.set(key, end + 8);
    end += 8 + size;
  }
  return collect(value, what, ({ key }) => {
    const start = starts.get(key);
    if (start === undefined) throw bad(`it lacks the storage ${key}`);
    return { file: bytes, start };
  });
}

/** Levels of objects within each other, objects in all, and characters of the keys to one. */
const MOST_LEVELS = 64, MOST_OBJECTS = 2 ** 18, MOST_KEYS = 512;

/** Where the numbers of a storage are. */
interface Place {
  readonly file: Bytes;
  readonly start: number;
}

/** Tensors, numbers and texts by the keys that lead to them. */
function collect(
  value: unknown,
  what: string,
  placeOf: (storage: TorchStorage) => Place,
): TorchFile {
  const bad = (why: string) => new InputError(`Cannot read ${what} as a file of PyTorch: ${why}`);
  const tensors = new Map<string, StoredTensor>(), metadata = new Map<string, string>();
  const places = new Map<TorchStorage, Place>();
  let objects = 0;
  const visit = (value: unknown, path: string, level: number): void => {
    if (level > MOST_LEVELS) throw bad(`it has more than ${MOST_LEVELS} levels`);
    if (++objects > MOST_OBJECTS) throw bad("it has more objects than any model");
    if (path.length > MOST_KEYS) throw bad(`${path.slice(0, 40)}… is too long for a name`);
    const keep = (tensor: StoredTensor) => {
      if (tensors.has(path)) throw bad(`${path} is there twice`);
      tensors.set(path, tensor);
    };
    const inner = (key: string, value: unknown) =>
      visit(value, path ? `${path}.${key}` : key, level + 1);
    if (value instanceof TorchTensor) {
      const { storage } = value, place = places.get(storage) ?? placeOf(storage);
      places.set(storage, place);
      keep(storedTensor(value, place, () => bad(`${path} is no longer all there`)));
    } else if (value instanceof PickledArray) keep(arrayTensor(value));
    else if (value instanceof Map) {
      // What is called by a class or the like is no part of a model.
      for (const [key, item] of value) {
        if (typeof key === "string" || typeof key === "number") inner(String(key), item);
      }
    } else if (Array.isArray(value)) {
      value.forEach((item, i) => {
        if (typeof item === "object") inner(String(i), item);
      });
    } else if (["number", "bigint", "string", "boolean"].includes(typeof value) && path) {
      metadata.set(path, String(value));
    }
  };
  visit(value, "", 0);
  return { tensors, metadata: Object.fromEntries(metadata) };
}

/** A tensor whose storage is at a place. */
function storedTensor(
  { dtype, shape, strides, start: first }: TorchTensor,
  { file, start }: Place,
  gone: () => InputError,
): StoredTensor {
  const size = elementSize(dtype), length = size * sizeOf(shape), begin = start + first;
  const take = (from: number, to: number, into?: Uint8Array<ArrayBuffer>) => {
    const bytes = file.read(from, to, into);
    if (bytes.length < to - from) throw gone();
    return bytes;
  };
  const dense = denseStrides(shape);
  const isDense = shape.every((n, axis) => n === 1 || strides[axis] === dense[axis]);
  const read: StoredTensor["read"] = isDense
    ? (from, to, into) => take(begin + from, begin + to, into)
    : (from, to) => {
      const span = shape.reduce((at, n, axis) => at + (n - 1) * strides[axis], 1);
      return gather(take(begin, begin + span * size), shape, strides, size).subarray(from, to);
    };
  return {
    ...{ dtype, shape },
    read: (from, to, into) => length ? read(from, to, into) : new Uint8Array(),
    get bytes() {
      return this.read(0, length);
    },
  };
}

/** The elements that strides lead to, the last index changing first. */
function gather(
  from: Uint8Array<ArrayBuffer>,
  shape: readonly number[],
  strides: readonly number[],
  size: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(sizeOf(shape) * size), at = shape.map(() => 0);
  let index = 0;
  for (let to = 0; to < out.length; to += size) {
    for (let k = 0; k < size; k++) out[to + k] = from[index * size + k];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index += strides[axis];
      if (++at[axis] < shape[axis]) break;
      index -= at[axis] * strides[axis];
      at[axis] = 0;
    }
  }
  return out;
}

/** Types of NumPy by those of tensors. */
const arrayTypes: Readonly<Record<string, FileDType>> = {
  ...{ b1: "BOOL", u1: "U8", i1: "I8", u2: "U16", i2: "I16", u4: "U32", i4: "I32" },
  ...{ u8: "U64", i8: "I64", f2: "F16", f4: "F32", f8: "F64" },
};

/** An array of NumPy as a tensor. */
function arrayTensor(array: PickledArray): StoredTensor {
  return {
    ...{ dtype: arrayTypes[array.type] ?? `numpy ${array.type}`, shape: array.shape },
    read: (from, to) => array.bytes().subarray(from, to),
    get bytes() {
      return array.bytes();
    },
  };
}
