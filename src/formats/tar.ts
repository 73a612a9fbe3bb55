/**
 * Tar archives: blocks of 512 bytes, a header before each file. Knows the long names of POSIX (pax)
 * and of GNU, links, and the sparse files of GNU.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatBytes } from "../units.ts";
import type { ArchiveEntry } from "./archive.ts";
import { type Bytes, decodeName } from "./bytes.ts";
import { placeParts, readHeaderMap, readPaxMap } from "./tar_sparse.ts";

const BLOCK = 512;
/** Longer names, and other facts about a file, than this are taken for damage. */
const MAX_FACTS = 1 << 20;

const latin = new TextDecoder("latin1");

/** The bytes before the first zero. */
function untilZero(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

const nameOf = (bytes: Uint8Array) => decodeName(untilZero(bytes));

/** A number in octal digits, or in binary where the first bit is set. */
function numberOf(field: Uint8Array): number {
  if (field[0] & 0x80) return field.slice(1).reduce((n, byte) => 256 * n + byte, field[0] & 0x7f);
  const text = latin.decode(untilZero(field)).trim();
  return /^[0-7]*$/.test(text) ? parseInt(text || "0", 8) : NaN;
}

/**
 * Whether a block starts as a header does: its bytes add up to what it says. Old programs took bytes
 * from 128 on, of which names that are not in English may have some, for negative.
 */
export function isTarHeader(header: Uint8Array): boolean {
  if (header.length < BLOCK) return false;
  let sum = 8 * 0x20, high = 0;
  header.subarray(0, BLOCK).forEach((byte, i) => {
    if (i >= 148 && i < 156) return;
    sum += byte;
    high += byte >> 7;
  });
  const told = numberOf(header.subarray(148, 156));
  return told === sum || told === sum - 256 * high;
}

/** Kinds of entries: those without data, facts about the next file, and what is no file. */
const WITHOUT_DATA = "123456", FACTS = "xXgLK", NO_FILE = "DMNV";

/** What entries before a file say of it, in place of its header. */
interface Facts {
  name?: string;
  target?: string;
  size?: number;
  records?: readonly (readonly [key: string, value: string])[];
}

/**
 * The files and links of an archive, in their order.
 *
 * @throws {InputError} If it is no tar archive, or damaged.
 */
export function readTar(bytes: Bytes, what: string): ArchiveEntry[] {
  const bad = (why: string) => new InputError(`Cannot read ${what} as tar: ${why}`);
  const entries: ArchiveEntry[] = [];
  let facts: Facts = {};
  for (let at = 0; at < bytes.length;) {
    const header = bytes.read(at, at + BLOCK), start = at;
    if (header.every((byte) => byte === 0)) break;
    if (!isTarHeader(header)) throw bad(`there is no header at byte ${at}; is it damaged?`);
    const kind = String.fromCharCode(header[156] || 0x30), isFact = FACTS.includes(kind);
    const held = (isFact ? undefined : facts.size) ?? numberOf(header.subarray(124, 136));
    const map = kind === "S" ? readHeaderMap(bytes, header, at + BLOCK, numberOf) : undefined;
    const size = WITHOUT_DATA.includes(kind) ? 0 : held, from = map?.from ?? at + BLOCK;
    if (!Number.isSafeInteger(size) || from + size > bytes.length) {
      throw bad(`it ends within the file at byte ${start}; is it truncated?`);
    }
    at = from + Math.ceil(size / BLOCK) * BLOCK;
    if (isFact) {
      if (size > MAX_FACTS) throw bad(`a name of ${formatBytes(size)} is too long`);
      facts = { ...facts, ...readFacts(kind, bytes.read(from, from + size)) };
      continue;
    }
    const name = facts.name ?? headerName(header), { target, records = [] } = facts;
    facts = {};
    if (kind === "1" || kind === "2") {
      const link = { target: target ?? nameOf(header.subarray(157, 257)), isHard: kind === "1" };
      entries.push({ name, offset: from, size, link });
    } else if (!WITHOUT_DATA.includes(kind) && !NO_FILE.includes(kind) && !name.endsWith("/")) {
      const sparse = map ?? readPaxMap(bytes, records, from);
      const placed = sparse ? placeParts(sparse, from + size) : { size };
      if (!placed) throw bad(`the parts of the sparse file ${name} do not fit; is it damaged?`);
      entries.push({ name, offset: from, ...placed });
    }
  }
  return entries;
}

/** A file's name where nothing but its header says it. */
function headerName(header: Uint8Array): string {
  // GNU's headers have other things in the place of the prefix.
  const isPosix = latin.decode(header.subarray(257, 263)) === "ustar\0";
  const prefix = isPosix ? nameOf(header.subarray(345, 500)) : "";
  return [prefix, nameOf(header.subarray(0, 100))].filter((part) => part).join("/");
}

/** What an entry says of the next file. */
function readFacts(kind: string, bytes: Uint8Array): Facts {
  if (kind === "L") return { name: nameOf(bytes) };
  if (kind === "K") return { target: nameOf(bytes) };
  // Of all files that follow: nothing that matters here.
  if (kind === "g") return {};
  const records = readPax(bytes), found = new Map(records);
  const name = found.get("GNU.sparse.name") ?? found.get("path"), target = found.get("linkpath");
  const size = found.get("size");
  return {
    ...(name === undefined ? {} : { name }),
    ...(target === undefined ? {} : { target }),
    ...(size === undefined ? {} : { size: Number(size) }),
    records,
  };
}

/** Records of the form "length key=value\n". */
function readPax(bytes: Uint8Array): [key: string, value: string][] {
  const records: [string, string][] = [];
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(latin.decode(bytes.subarray(at, Math.max(at, space))));
    if (!(length > 0)) break;
    const record = bytes.subarray(space + 1, at + length - 1), equals = record.indexOf(0x3d);
    records.push([
      latin.decode(record.subarray(0, Math.max(0, equals))),
      decodeName(record.subarray(equals + 1)),
    ]);
    at += length;
  }
  return records;
}
