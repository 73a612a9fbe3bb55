/**
 * The safetensors format: an 8-byte length, a JSON header, raw little-endian data. Everything a
 * header says is checked before it is believed.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatShape, sizeOf } from "../shape.ts";
import { asBytes, type Bytes, type Scratch, viewOf } from "./bytes.ts";
import { formatBytePair, formatBytes } from "../units.ts";
import {
  decodeElements,
  elementSize,
  type FileDType,
  fileDTypes,
  isFileDType,
} from "./elements.ts";

export type { FileDType };

/** A tensor in a file. */
export interface FileTensor {
  /** Type of its elements: a {@linkcode FileDType}, or another, whose numbers cannot be read. */
  readonly dtype: string;
  /** Its sizes, the slowest axis first; `[]` for a single number. */
  readonly shape: readonly number[];
  /** Its part of the file, little-endian; of a file on a disk, read whenever it is asked for. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** A part of its bytes, which may be put into `into` if they have to be read. */
  read?(from: number, to: number, into?: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
}

/** A tensor in a file that is still there. */
export type StoredTensor = FileTensor & Required<Pick<FileTensor, "read">>;

/** The contents of a safetensors file. */
export interface Safetensors {
  /** All tensors by name, in the order of the header. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The strings under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Where a header holds what is no tensor. */
const METADATA_KEY = "__metadata__";

/** Larger headers than this are refused, as the reference implementation does. */
const MAX_HEADER = 100_000_000;

/**
 * Reads a file: its header at once, tensors when they are asked for.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is no safetensors file, truncated, or contradicts itself.
 *
 * @example
 * ```ts
 * import { readSafetensors, writeSafetensors } from "@x/ddpm";
 *
 * const file = writeSafetensors([{ name: "x", shape: [2], values: new Float32Array([1, 2]) }]);
 * console.log(readSafetensors(file).tensors.get("x")?.shape);
 * ```
 */
export function readSafetensors(
  file: Uint8Array<ArrayBuffer> | Bytes,
  what = "file",
): Safetensors {
  const bytes = asBytes(file);
  const bad = (why: string) => new InputError(`Cannot read ${what} as safetensors: ${why}`);
  if (bytes.length < 8) throw bad(`${formatBytes(bytes.length)} are too few`);
  const length = viewOf(bytes.read(0, 8)).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER)) {
    throw bad(`a header of ${formatBytes(Number(length))} is too long`);
  }
  const start = 8 + Number(length);
  if (start > bytes.length) {
    const [needed, there] = formatBytePair(start, bytes.length);
    throw bad(`its header takes ${needed}, but the file ends after ${there}; is it truncated?`);
  }
  let header: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.read(8, start));
    header = JSON.parse(text);
    const twice = findDuplicateKey(text);
    if (twice !== undefined) throw new SyntaxError(`${twice} is there twice`);
  } catch (error) {
    throw bad(`its header is no JSON (${(error as Error).message})`);
  }
  if (!isRecord(header)) throw bad("its header is no JSON object");

  const tensors = new Map<string, StoredTensor>(), ranges: [number, number, string][] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === METADATA_KEY) {
      if (entry !== null && !isStringRecord(entry)) throw bad("its metadata are not all strings");
      metadata = entry ?? {};
      continue;
    }
    const { dtype, shape, data_offsets: range } = Object(entry);
    if (typeof dtype !== "string") {
      throw bad(`${name} has the type ${JSON.stringify(dtype)}, not the name of one`);
    }
    if (!isCounts(shape)) throw bad(`${name} has no proper shape`);
    if (!isCounts(range) || range.length !== 2 || range[0] > range[1]) {
      throw bad(`${name} has no proper data_offsets`);
    }
    const [from, to] = range;
    if (start + to > bytes.length) {
      const [needed, there] = formatBytePair(start + to, bytes.length);
      throw bad(`${name} ends after ${needed}, but the file after ${there}; is it truncated?`);
    }
    // How large elements of other types are is not known: nobody has to read them.
    const size = isFileDType(dtype) ? sizeOf(shape) * elementSize(dtype) : to - from;
    if (to - from !== size) {
      const [needed, there] = formatBytePair(size, to - from);
      throw bad(`${name} of ${dtype} ${formatShape(shape)} needs ${needed}, not ${there}`);
    }
    ranges.push([from, to, name]);
    const read = (first: number, last: number, into?: Uint8Array<ArrayBuffer>) => {
      const part = bytes.read(start + from + first, start + from + last, into);
      if (part.length === last - first) return part;
      throw bad(`${name} is no longer all there`);
    };
    tensors.set(name, {
      ...{ dtype, shape, read },
      get bytes() {
        return read(0, to - from);
      },
    });
  }
  let end = 0;
  for (const [from, to, name] of ranges.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (from < end) throw bad(`${name} overlaps the tensor before it`);
    if (from > end) throw bad(`there is a hole of ${formatBytes(from - end)} before ${name}`);
    end = to;
  }
  if (start + end !== bytes.length) {
    throw bad(`there are ${formatBytes(bytes.length - start - end)} after the last tensor`);
  }
  return { tensors, metadata };
}

const isCounts = (x: unknown): x is number[] =>
  Array.isArray(x) && x.every((n) => Number.isSafeInteger(n) && n >= 0);

const isRecord = (x: unknown): x is Record<string, unknown> =>
  typeof x === "object" && x !== null && !Array.isArray(x);

const isStringRecord = (x: unknown): x is Record<string, string> =>
  isRecord(x) && Object.values(x).every((v) => typeof v === "string");

/** A key that is twice in one object of valid JSON; `JSON.parse` would keep the last only. */
function findDuplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [], colon = /\s*:/y;
  for (let i = 0; i < json.length; i++) {
    if (json[i] === "{") open.push(new Set());
    if (json[i] === "}") open.pop();
    if (json[i] !== '"') continue;
    const start = i++;
    for (; json[i] !== '"'; i++) if (json[i] === "\\") i++;
    colon.lastIndex = i + 1;
    if (!colon.test(json)) continue;
    const key: string = JSON.parse(json.slice(start, i + 1)), keys = open.at(-1)!;
    if (keys.has(key)) return key;
    keys.add(key);
  }
}

/**
 * A tensor's numbers as 32-bit floats, in an array of their own.
 *
 * @param what What it is called, for messages.
 * @param scratch Memory to use for the bytes, slot 0, and for the numbers, slot 1.
 * @throws {InputError} If its elements are of a type that cannot be read.
 */
export function toFloat32(
  tensor: FileTensor,
  what = "a tensor",
  scratch?: Scratch,
): Float32Array<ArrayBuffer> {
  const { dtype, shape } = tensor;
  if (!isFileDType(dtype)) {
    throw new InputError(
      `Cannot read ${what}: its elements are of type ${dtype}, not one of ${fileDTypes.join(", ")}`,
    );
  }
  if (!scratch) return decodeElements(dtype, tensor.bytes);
  const count = sizeOf(shape), size = count * elementSize(dtype);
  const bytes = tensor.read?.(0, size, scratch.bytes(0, size)) ?? tensor.bytes;
  return decodeElements(dtype, bytes, scratch.floats(1, count));
}

/** A tensor to write. */
export interface NamedTensor {
  /** As it will be found; not `__metadata__`. */
  readonly name: string;
  /** Its sizes, the slowest axis first. */
  readonly shape: readonly number[];
  /** Type of its elements in the file, if not that of the array. */
  readonly dtype?: FileDType;
  /** Its elements in row-major order; asked for when they are written, if `dtype` is known. */
  readonly values:
    | Float32Array<ArrayBuffer>
    | Float16Array<ArrayBuffer>
    | Int32Array<ArrayBuffer>
    | Uint16Array<ArrayBuffer>
    | Uint8Array<ArrayBuffer>;
}

function dtypeOf({ values }: NamedTensor): FileDType {
  if (values instanceof Int32Array) return "I32";
  if (values instanceof Uint8Array) return "U8";
  return values instanceof Float32Array ? "F32" : values instanceof Uint16Array ? "U16" : "F16";
}

/**
 * Writes a file, tensors in the given order. The same tensors and metadata give the same bytes.
 *
 * @throws {RangeError} If a shape does not fit its values, or a name is taken.
 *
 * @example
 * ```ts
 * import { writeSafetensors } from "@x/ddpm";
 *
 * const values = new Float32Array([1, 2, 3, 4]);
 * const bytes = writeSafetensors([{ name: "x", shape: [2, 2], values }], { note: "an example" });
 * console.log(bytes.length);
 * ```
 */
export function writeSafetensors(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  return collect(encodeSafetensors(tensors, metadata));
}

/** A file that is made part by part. */
export interface EncodedFile {
  /** Bytes in all. */
  readonly length: number;
  /** Its parts in order, to be gone through once. */
  readonly parts: Iterable<Uint8Array<ArrayBuffer>>;
}

/** All bytes of a file. */
export function collect({ length, parts }: EncodedFile): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * What {@linkcode writeSafetensors} writes, tensor by tensor.
 *
 * @throws {RangeError} If a name is taken; while its parts are made, if a shape does not fit its values.
 */
export function encodeSafetensors(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): EncodedFile {
  const described = tensors.map((tensor) => ({
    ...{ name: tensor.name, shape: tensor.shape, dtype: tensor.dtype ?? dtypeOf(tensor) },
  }));
  const head = encodeHeader(described, metadata);
  const sizes = described.map(({ shape, dtype }) => sizeOf(shape) * elementSize(dtype));
  function* parts() {
    yield head;
    for (const [i, tensor] of tensors.entries()) {
      const { name, shape } = tensor, { values } = tensor;
      if (values.byteLength !== sizes[i]) {
        throw new RangeError(
          `Cannot write ${name}: shape ${formatShape(shape)} does not fit ${values.length} values`,
        );
      }
      yield new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    }
  }
  return { length: sizes.reduce((sum, size) => sum + size, head.length), parts: parts() };
}

/**
 * What comes before the numbers of tensors, which follow each other without gaps.
 *
 * @internal
 * @throws {RangeError} If a name is taken.
 */
export function encodeHeader(
  tensors: readonly (Pick<NamedTensor, "name" | "shape"> & { readonly dtype: FileDType })[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const header = new Map<string, unknown>();
  if (Object.keys(metadata).length) header.set(METADATA_KEY, metadata);
  let end = 0;
  for (const { name, shape, dtype } of tensors) {
    if (name === METADATA_KEY || header.has(name)) {
      throw new RangeError(`Cannot write ${name}: the name is taken`);
    }
    const range = [end, end += sizeOf(shape) * elementSize(dtype)];
    header.set(name, { dtype, shape, data_offsets: range });
  }
  // Data start at a multiple of eight, so that readers can map them.
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const length = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20, 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  return bytes;
}
