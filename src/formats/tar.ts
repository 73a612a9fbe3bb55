/**
 * Tar archives: blocks of 512 bytes, a header before each file. Knows the long names of POSIX (pax)
 * and of GNU.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Bytes } from "./bytes.ts";
import type { ArchiveEntry } from "./zip.ts";
import { formatBytes } from "../units.ts";

const BLOCK = 512;
/** Longer names, and other facts about a file, than this are taken for damage. */
const MAX_FACTS = 1 << 20;

const latin = new TextDecoder("latin1"), utf8 = new TextDecoder();

/** A text up to its first zero. */
const textOf = (bytes: Uint8Array, decoder = utf8) => decoder.decode(bytes).replace(/\0.*$/s, "");

/** A number in octal digits, or in binary where the first bit is set. */
function numberOf(field: Uint8Array): number {
  if (field[0] & 0x80) return field.slice(1).reduce((n, byte) => 256 * n + byte, field[0] & 0x7f);
  const text = textOf(field, latin).trim();
  return /^[0-7]*$/.test(text) ? parseInt(text || "0", 8) : NaN;
}

/** Whether a block starts as a header does: its bytes add up to what it says. */
export function isTarHeader(header: Uint8Array): boolean {
  if (header.length < BLOCK) return false;
  let sum = 8 * 0x20;
  header.subarray(0, BLOCK).forEach((byte, i) => sum += i >= 148 && i < 156 ? 0 : byte);
  return numberOf(header.subarray(148, 156)) === sum;
}

/**
 * The files of an archive, in their order.
 *
 * @throws {InputError} If it is no tar archive, or damaged.
 */
export function readTar(bytes: Bytes, what: string): ArchiveEntry[] {
  const bad = (why: string) => new InputError(`Cannot read ${what} as tar: ${why}`);
  const entries: ArchiveEntry[] = [];
  let longName: string | undefined, longSize: number | undefined;
  for (let at = 0; at < bytes.length;) {
    const header = bytes.read(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) break;
    if (!isTarHeader(header)) throw bad(`there is no header at byte ${at}; is it damaged?`);
    const kind = String.fromCharCode(header[156] || 0x30);
    const isFact = "xgLK".includes(kind);
    const size = (isFact ? undefined : longSize) ?? numberOf(header.subarray(124, 136));
    const from = at + BLOCK;
    if (!Number.isSafeInteger(size) || from + size > bytes.length) {
      throw bad(`it ends within the file at byte ${at}; is it truncated?`);
    }
    at = from + Math.ceil(size / BLOCK) * BLOCK;
    if (isFact) {
      if (size > MAX_FACTS) throw bad(`a name of ${formatBytes(size)} is too long`);
      const facts = bytes.read(from, from + size);
      if (kind === "L") longName = textOf(facts);
      if (kind === "x") {
        const records = readPax(facts);
        longName = records.get("path") ?? longName;
        const given = records.get("size");
        longSize = given === undefined ? longSize : Number(given);
      }
      continue;
    }
    if (kind === "0" || kind === "7") {
      const prefix = textOf(header.subarray(257, 262)) === "ustar"
        ? textOf(header.subarray(345, 500))
        : "";
      const name = longName ?? [prefix, textOf(header.subarray(0, 100))].filter((s) => s).join("/");
      entries.push({ name, offset: from, size });
    }
    longName = longSize = undefined;
  }
  return entries;
}

/** Records of the form "length key=value\n". */
function readPax(bytes: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(latin.decode(bytes.subarray(at, Math.max(at, space))));
    if (!(length > 0)) break;
    const record = utf8.decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}
