/**
 * Zip archives: the directory at the end, and files that are stored or deflated.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatBytePair, formatBytes } from "../units.ts";
import type { ArchiveEntry } from "./archive.ts";
import { type Bytes, decodeName, inMemory, streamOf, unpack, viewOf } from "./bytes.ts";

const END = 0x06054b50, END_64 = 0x06064b50, LOCATOR_64 = 0x07064b50;
const CENTRAL = 0x02014b50, LOCAL = 0x04034b50;
const STORED = 0, DEFLATED = 8;
/** Sizes that are elsewhere, in fields of 64 bits. */
const ELSEWHERE = 0xffffffff;
/** A single file of more bytes than this is not unpacked. */
const MAX_FILE = 2 ** 31;
/** What Unix says of symbolic links, and the most bytes that a path has there. */
const LINK_MODE = 0xa000, MAX_PATH = 4096;

/**
 * The files and links of an archive, in the order of its directory.
 *
 * @throws {InputError} If it is no zip archive, or damaged.
 */
export async function readZip(bytes: Bytes, what: string): Promise<ArchiveEntry[]> {
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
    const name = nameOf(directory.subarray(at + 46, at + 46 + nameLength));
    const extraAt = at + 46 + nameLength;
    const extra = viewOf(directory.subarray(extraAt, extraAt + extraLength));
    const [size, packedSize, offset] = wideFields(
      extra,
      [24, 20, 42].map((field) => view.getUint32(at + field, true)),
    );
    const isUnix = view.getUint8(at + 5) === 3, mode = view.getUint16(at + 40, true);
    at = next;
    if (name.endsWith("/")) continue;
    if (offset + packedSize > bytes.length) {
      throw bad(`${shown(name)} is beyond the end of the file`);
    }
    const packed = { size: packedSize, method, isEncrypted: (flags & 1) === 1 };
    const entry = { name, offset, size, packed };
    const isLink = isUnix && (mode & 0xf000) === LINK_MODE && size <= MAX_PATH;
    entries.push(isLink ? await asLink(bytes, entry, what) : entry);
  }
  return entries;
}

/** A name in messages, which in a damaged archive may be anything. */
const shown = (name: string): string => name.length > 200 ? `${name.slice(0, 200)}…` : name;

/** A name; archives made by old versions of .NET have backslashes in place of slashes. */
function nameOf(bytes: Uint8Array): string {
  const name = decodeName(bytes);
  // In Chinese and Japanese encodings, the byte of a backslash is half of many a character.
  return bytes.every((byte) => byte < 0x80) ? name.replaceAll("\\", "/") : name;
}

/** The entry as a symbolic link, whose content is where it leads, or as it is if that is damaged. */
async function asLink(bytes: Bytes, entry: ArchiveEntry, what: string): Promise<ArchiveEntry> {
  try {
    const target = decodeName(await extract(bytes, entry, what));
    return { ...entry, link: { target, isHard: false } };
  } catch (error) {
    if (error instanceof InputError) return entry;
    throw error;
  }
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

/** Where a directory is, and how many entries it has. */
interface Directory {
  readonly from: number;
  readonly length: number;
  readonly count: number;
  /** Whether it ends where its end record starts, and that, with its comment, at the end. */
  readonly isWhole: boolean;
}

/**
 * Where the directory is. A comment of up to 64 KiB may follow its end record, and hold what looks
 * like another: the last record counts of which all fits together, or else the last one.
 */
function findDirectory(bytes: Bytes, bad: (why: string) => InputError): Directory {
  const first = Math.max(0, bytes.length - 22 - 0xffff), tail = bytes.read(first, bytes.length);
  const view = viewOf(tail);
  let last: Directory | undefined;
  for (let at = tail.length - 22; at >= 0; at--) {
    if (view.getUint32(at, true) !== END) continue;
    const found = readEnd(bytes, first + at);
    if (found?.isWhole) return found;
    last ??= found;
  }
  if (!last) throw bad("it has no directory; is it truncated?");
  return last;
}

/** What an end record says; nothing if its 64-bit part is missing. */
function readEnd(bytes: Bytes, at: number): Directory | undefined {
  const view = viewOf(bytes.read(at, at + 22));
  const length = view.getUint32(12, true), from = view.getUint32(16, true);
  const count = view.getUint16(10, true),
    isLast = at + 22 + view.getUint16(20, true) === bytes.length;
  const isNarrow = length !== ELSEWHERE && from !== ELSEWHERE && count !== 0xffff;
  const locator = viewOf(bytes.read(Math.max(0, at - 20), at));
  if (isNarrow || locator.byteLength < 20 || locator.getUint32(0, true) !== LOCATOR_64) {
    return { from, length, count, isWhole: isLast && from + length === at };
  }
  const place = Number(locator.getBigUint64(8, true));
  const end = viewOf(place < at ? bytes.read(place, place + 56) : new Uint8Array());
  if (end.byteLength < 56 || end.getUint32(0, true) !== END_64) return undefined;
  const wide = (field: number) => Number(end.getBigUint64(field, true));
  const directory = { from: wide(48), length: wide(40), count: wide(32) };
  return { ...directory, isWhole: isLast && directory.from + directory.length === place };
}

/** Where the data of a file start, whose local header is at `offset`. */
function dataStart(bytes: Bytes, offset: number, bad: (why: string) => InputError): number {
  const header = bytes.read(offset, offset + 30), view = viewOf(header);
  if (header.length < 30 || view.getUint32(0, true) !== LOCAL) throw bad("its header is damaged");
  return offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
}

/** Whether a file of a zip archive has to be unpacked. */
export const isDeflated = ({ packed }: ArchiveEntry): boolean => packed?.method === DEFLATED;

/**
 * Where the bytes of a file are in a zip archive, for files that are stored as they are.
 *
 * @throws {InputError} If it is damaged, compressed or encrypted.
 */
export function storedAt(
  bytes: Bytes,
  { name, offset, size, packed }: ArchiveEntry,
  what: string,
): number {
  const bad = (why: string) => new InputError(`Cannot read ${shown(name)} in ${what}: ${why}`);
  if (!packed || packed.isEncrypted || packed.method !== STORED || packed.size !== size) {
    throw bad("it is not stored as it is, but compressed or encrypted");
  }
  const from = dataStart(bytes, offset, bad);
  if (from + size > bytes.length) throw bad("the archive ends before");
  return from;
}

/**
 * A file of an archive.
 *
 * @throws {InputError} If it is damaged.
 */
export async function extract(
  bytes: Bytes,
  { name, offset, size, packed, parts }: ArchiveEntry,
  what: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const bad = (why: string) => new InputError(`Cannot read ${shown(name)} in ${what}: ${why}`);
  if (size > MAX_FILE) throw bad(`${formatBytes(size)} are too many`);
  const read = (from: number, size: number) => {
    const data = bytes.read(from, from + size);
    if (data.length < size) throw bad("the archive ends before");
    return data;
  };
  if (parts) {
    const file = new Uint8Array(size);
    for (const part of parts) file.set(read(part.offset, part.size), part.at);
    return file;
  }
  if (!packed) return read(offset, size);
  const from = dataStart(bytes, offset, bad), data = read(from, packed.size);
  if (packed.isEncrypted) throw bad("it is encrypted");
  if (packed.method !== STORED && packed.method !== DEFLATED) {
    throw bad(`it is packed by method ${packed.method}, not stored or deflated`);
  }
  const file = packed.method === STORED ? data : await unpack(
    streamOf(inMemory(data)),
    "deflate-raw",
    bad("").message.replace(/: $/, ""),
    size,
  );
  if (file.length !== size) {
    const [has, should] = formatBytePair(file.length, size);
    throw bad(`it has ${has}, not ${should}`);
  }
  return file;
}
