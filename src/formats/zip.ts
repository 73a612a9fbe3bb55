/**
 * Zip archives: the directory at the end, and files that are stored or deflated.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { type Bytes, streamOf, unpack, viewOf } from "./bytes.ts";
import { formatBytePair, formatBytes } from "../units.ts";

/** A file in an archive. */
export interface ArchiveEntry {
  /** Its path. */
  readonly name: string;
  /** Where it starts: its data, or in a zip its local header. */
  readonly offset: number;
  /** Its bytes, unpacked. */
  readonly size: number;
  /** For those of a zip: its bytes as they are packed, and how that was done. */
  readonly packed?: { readonly size: number; readonly method: number };
}

const END = 0x06054b50, END_64 = 0x06064b50, LOCATOR_64 = 0x07064b50;
const CENTRAL = 0x02014b50, LOCAL = 0x04034b50;
const STORED = 0, DEFLATED = 8;
/** Sizes that are elsewhere, in fields of 64 bits. */
const ELSEWHERE = 0xffffffff;
/** A single file of more bytes than this is not unpacked. */
const MAX_FILE = 2 ** 31;

/**
 * The files of an archive, in the order of its directory.
 *
 * @throws {InputError} If it is no zip archive, or damaged.
 */
export function readZip(bytes: Bytes, what: string): ArchiveEntry[] {
  const bad = (why: string) => new InputError(`Cannot read ${what} as zip: ${why}`);
  const { from, length, count } = findDirectory(bytes, bad);
  if (from + length > bytes.length) throw bad("its directory is damaged");
  const directory = bytes.read(from, from + length), view = viewOf(directory);
  const entries: ArchiveEntry[] = [];
  for (let at = 0, i = 0; i < count; i++) {
    if (at + 46 > directory.length) throw bad(`its directory has ${i} entries, not ${count}`);
    if (view.getUint32(at, true) !== CENTRAL) throw bad("its directory is damaged");
    const flags = view.getUint16(at + 8, true), method = view.getUint16(at + 10, true);
    const nameLength = view.getUint16(at + 28, true), extraLength = view.getUint16(at + 30, true);
    const next = at + 46 + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > directory.length) throw bad("its directory ends within an entry");
    const name = new TextDecoder().decode(directory.subarray(at + 46, at + 46 + nameLength));
    const extraAt = at + 46 + nameLength;
    const extra = viewOf(directory.subarray(extraAt, extraAt + extraLength));
    const [size, packedSize, offset] = wideFields(
      extra,
      [24, 20, 42].map((field) => view.getUint32(at + field, true)),
    );
    at = next;
    if (name.endsWith("/")) continue;
    if (flags & 1) throw bad(`${name} is encrypted`);
    if (offset + packedSize > bytes.length) throw bad(`${name} is beyond the end of the file`);
    entries.push({ name, offset, size, packed: { size: packedSize, method } });
  }
  return entries;
}

/** The numbers, with those of 64 bits from the extra field in place of those that are too large. */
function wideFields(extra: DataView, numbers: readonly number[]): number[] {
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const id = extra.getUint16(at, true), end = at + 4 + extra.getUint16(at + 2, true);
    if (id === 1) {
      let from = at + 4;
      return numbers.map((number) => {
        if (number !== ELSEWHERE || from + 8 > Math.min(end, extra.byteLength)) return number;
        from += 8;
        return Number(extra.getBigUint64(from - 8, true));
      });
    }
    at = end;
  }
  return [...numbers];
}

/** Where the directory is. A comment of up to 64 KiB may follow its end record. */
function findDirectory(bytes: Bytes, bad: (why: string) => InputError) {
  const first = Math.max(0, bytes.length - 22 - 0xffff), tail = bytes.read(first, bytes.length);
  const view = viewOf(tail);
  for (let at = tail.length - 22; at >= 0; at--) {
    if (view.getUint32(at, true) !== END) continue;
    const length = view.getUint32(at + 12, true), from = view.getUint32(at + 16, true);
    const count = view.getUint16(at + 10, true), narrow = { from, length, count };
    if (length !== ELSEWHERE && from !== ELSEWHERE && count !== 0xffff) return narrow;
    if (at < 20 || view.getUint32(at - 20, true) !== LOCATOR_64) return narrow;
    const place = Number(view.getBigUint64(at - 12, true)), end = bytes.read(place, place + 56);
    if (end.length < 56 || viewOf(end).getUint32(0, true) !== END_64) {
      throw bad("its 64-bit end record is missing");
    }
    const wide = (at: number) => Number(viewOf(end).getBigUint64(at, true));
    return { from: wide(48), length: wide(40), count: wide(32) };
  }
  throw bad("it has no directory; is it truncated?");
}

/**
 * A file of an archive.
 *
 * @throws {InputError} If it is damaged.
 */
export async function extract(
  bytes: Bytes,
  { name, offset, size, packed }: ArchiveEntry,
  what: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const bad = (why: string) => new InputError(`Cannot read ${name} in ${what}: ${why}`);
  if (size > MAX_FILE) {
    throw bad(`${formatBytes(size)} are too many`);
  }
  if (!packed) {
    const file = bytes.read(offset, offset + size);
    if (file.length < size) throw bad("the archive ends before");
    return file;
  }
  const header = bytes.read(offset, offset + 30), view = viewOf(header);
  if (header.length < 30 || view.getUint32(0, true) !== LOCAL) throw bad("its header is damaged");
  const from = offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  const data = bytes.read(from, from + packed.size);
  if (data.length < packed.size) throw bad("the archive ends before");
  if (packed.method !== STORED && packed.method !== DEFLATED) {
    throw bad(`it is packed by method ${packed.method}, not stored or deflated`);
  }
  const file = packed.method === STORED
    ? data
    : await unpack(streamOf(data), "deflate-raw", bad("").message.replace(/: $/, ""), size);
  if (file.length !== size) {
    const [has, should] = formatBytePair(file.length, size);
    throw bad(`it has ${has}, not ${should}`);
  }
  return file;
}
