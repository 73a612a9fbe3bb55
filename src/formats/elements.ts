/**
 * Element types of files of tensors, and their numbers as 32-bit floats, converted whole arrays at a
 * time. Data are little-endian, as every machine that runs JavaScript engines is.
 *
 * @module
 */

import { roundToHalves, widenHalves } from "../halves.ts";

/** Element types that can be read as numbers, by the names that safetensors gives them. */
export type FileDType =
  | ("BOOL" | "U8" | "I8" | "U16" | "I16" | "U32" | "I32" | "U64" | "I64")
  | ("F8_E4M3" | "F8_E5M2" | "F16" | "BF16" | "F32" | "F64");

/** The arrays that hold their bits. */
const arrays = {
  ...{ BOOL: Uint8Array, U8: Uint8Array, I8: Int8Array, F8_E4M3: Uint8Array, F8_E5M2: Uint8Array },
  ...{ U16: Uint16Array, I16: Int16Array, F16: Uint16Array, BF16: Uint16Array },
  ...{ U32: Uint32Array, I32: Int32Array, F32: Float32Array },
  ...{ U64: BigUint64Array, I64: BigInt64Array, F64: Float64Array },
} satisfies Record<FileDType, unknown>;

/** Whether elements of this type can be read. */
export const isFileDType = (dtype: unknown): dtype is FileDType =>
  typeof dtype === "string" && Object.hasOwn(arrays, dtype);

/** Bytes of an element. */
export const elementSize = (dtype: FileDType): number => arrays[dtype].BYTES_PER_ELEMENT;

/** All types, and those that hold floats. */
export const fileDTypes: readonly FileDType[] = Object.keys(arrays).filter(isFileDType);
export const floatDTypes = fileDTypes.filter((dtype) => /^B?F/.test(dtype));

interface TypedArrayType<T> {
  new (buffer: ArrayBuffer, at: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}

/** A typed array over bytes, or over a copy where typed arrays cannot start. */
function viewAs<T>(Type: TypedArrayType<T>, bytes: Uint8Array<ArrayBuffer>): T {
  const size = Type.BYTES_PER_ELEMENT;
  const { buffer, byteOffset } = bytes.byteOffset % size ? bytes.slice() : bytes;
  return new Type(buffer, byteOffset, bytes.length / size);
}

/** Elements as 32-bit floats, in an array of their own or in that which is given. */
export function decodeElements(
  dtype: FileDType,
  bytes: Uint8Array<ArrayBuffer>,
  values: Float32Array<ArrayBuffer> = new Float32Array(bytes.length / elementSize(dtype)),
): Float32Array<ArrayBuffer> {
  switch (dtype) {
    case "F16":
      return widenHalves(viewAs(Uint16Array, bytes), values);
    case "BF16": {
      // The upper halves of 32-bit floats.
      const halves = viewAs(Uint16Array, bytes), { buffer, byteOffset } = values;
      const bits = new Uint32Array(buffer, byteOffset, values.length);
      for (let i = 0; i < bits.length; i++) bits[i] = halves[i] << 16;
      return values;
    }
    case "F8_E5M2": {
      // The upper halves of 16-bit floats.
      const bits = new Uint16Array(bytes.length);
      for (let i = 0; i < bits.length; i++) bits[i] = bytes[i] << 8;
      return widenHalves(bits, values);
    }
    case "F8_E4M3":
      for (let i = 0; i < values.length; i++) values[i] = float8[bytes[i]];
      return values;
    case "U64":
    case "I64": {
      const low = viewAs(Uint32Array, bytes);
      const high = dtype === "I64" ? viewAs(Int32Array, bytes) : low;
      for (let i = 0; i < values.length; i++) {
        values[i] = high[2 * i + 1] * 2 ** 32 + low[2 * i];
      }
      return values;
    }
    default:
      values.set(viewAs<ArrayLike<number>>(arrays[dtype], bytes));
      return values;
  }
}

/** The bits of numbers rounded to 16; `undefined` if one becomes infinite, or is no number. */
export function encodeHalves(
  dtype: "F16" | "BF16",
  values: Float32Array<ArrayBuffer>,
): Uint16Array<ArrayBuffer> | undefined {
  if (!isAllFinite(values)) return undefined;
  let bits: Uint16Array<ArrayBuffer>;
  if (dtype === "F16") bits = roundToHalves(values);
  else {
    const wide = new Uint32Array(values.buffer, values.byteOffset, values.length);
    bits = new Uint16Array(values.length);
    // To the nearest, of two equally near ones to the even.
    for (let i = 0; i < bits.length; i++) bits[i] = (wide[i] + 0x7fff + (wide[i] >> 16 & 1)) >>> 16;
  }
  const infinity = dtype === "F16" ? 0x7c00 : 0x7f80;
  for (let i = 0; i < bits.length; i++) if ((bits[i] & infinity) === infinity) return undefined;
  return bits;
}

/** The numbers of F8_E4M3: no infinities, and NaN where all bits but the sign are set. */
const float8 = Float32Array.from({ length: 256 }, (_, bits) => {
  const exponent = (bits >> 3) & 15, fraction = (bits & 7) / 8;
  if ((bits & 127) === 127) return NaN;
  const size = exponent ? (1 + fraction) * 2 ** (exponent - 7) : fraction * 2 ** -6;
  return bits & 128 ? -size : size;
});

/** Whether no number is infinite or NaN. */
export function isAllFinite(values: ArrayLike<number>): boolean {
  // Ten times as fast as every().
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}
