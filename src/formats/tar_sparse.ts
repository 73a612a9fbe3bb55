/**
 * Sparse files in tar archives, as GNU's tar writes them: without the zeros between their parts.
 *
 * @module
 */

import type { SparsePart } from "./archive.ts";
import type { Bytes } from "./bytes.ts";

/** Larger sparse files than this are refused: a few bytes could ask for all memory. */
const MAX_SPARSE = 2 ** 28;
const BLOCK = 512;
/** Blocks of the list of a file's parts that are read at the most. */
const MAX_BLOCKS = 1 << 14;

/** A sparse file before its parts are known to be in the archive. */
export interface SparseMap {
  /** Its bytes, with the zeros. */
  readonly size: number;
  /** Where in it each part belongs, and how long that is. */
  readonly parts: readonly (readonly [at: number, size: number])[];
  /** Where in the archive the first one starts; others follow without gaps. */
  readonly from: number;
}

/** The parts in the header of an entry of kind S, and in the blocks after it. */
export function readHeaderMap(
  bytes: Bytes,
  header: Uint8Array,
  from: number,
  numberOf: (field: Uint8Array) => number,
): SparseMap {
  const parts: [number, number][] = [];
  const take = (block: Uint8Array, first: number, count: number) => {
    for (let at = first; at < first + 24 * count; at += 24) {
      const size = numberOf(block.subarray(at + 12, at + 24));
      if (size) parts.push([numberOf(block.subarray(at, at + 12)), size]);
    }
  };
  take(header, 386, 4);
  let isLast = !header[482];
  for (let blocks = 0; !isLast && blocks < MAX_BLOCKS; blocks++) {
    const block = bytes.read(from, from += BLOCK);
    take(block, 0, 21);
    isLast = !block[504];
  }
  return { size: numberOf(header.subarray(483, 495)), parts, from };
}

/** The parts in facts of pax; nothing if the file is not sparse. */
export function readPaxMap(
  bytes: Bytes,
  records: readonly (readonly [key: string, value: string])[],
  from: number,
): SparseMap | undefined {
  const all = (key: string) =>
    records.filter(([k]) => k === `GNU.sparse.${key}`).map(([, value]) => value);
  const sizes = [...all("realsize"), ...all("size")].map(Number);
  if (!sizes.length) return undefined;
  const offsets = all("offset"), [list] = all("map");
  let numbers = list ? list.split(",") : all("numbytes").flatMap((n, i) => [offsets[i], n]);
  if (all("major")[0] === "1") ({ numbers, from } = readDataMap(bytes, from));
  const parts = Array.from(
    { length: numbers.length >> 1 },
    (_, i) => [Number(numbers[2 * i]), Number(numbers[2 * i + 1])] as const,
  );
  return { size: sizes[0], parts: parts.filter(([, size]) => size !== 0), from };
}

/** The list of parts that data start with: lines of decimal numbers, how many parts, then those. */
function readDataMap(bytes: Bytes, from: number): { numbers: string[]; from: number } {
  let text = "";
  for (let blocks = 0; blocks < MAX_BLOCKS; blocks++) {
    text += String.fromCharCode(...bytes.read(from, from += BLOCK));
    const [count, ...numbers] = text.split("\n");
    // The last one is what follows the last line break.
    if (numbers.length > 2 * Number(count)) {
      return { numbers: numbers.slice(0, 2 * Number(count)), from };
    }
  }
  return { numbers: ["-1", "-1"], from };
}

/** The parts of a file, if they are all between `from` and `to`, in order, and within the file. */
export function placeParts(
  { size, parts, from }: SparseMap,
  to: number,
): { size: number; parts: SparsePart[] } | undefined {
  if (!(size <= MAX_SPARSE)) return undefined;
  const placed: SparsePart[] = [];
  let end = 0, offset = from;
  for (const [at, length] of parts) {
    if (!(at >= end && length > 0 && at + length <= size && offset + length <= to)) {
      return undefined;
    }
    placed.push({ at, offset, size: length });
    end = at + length;
    offset += length;
  }
  return { size, parts: placed };
}
