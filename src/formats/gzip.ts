/**
 * Gzip files: one compressed stream or several, one after the other, as pigz, bgzip and `cat` make
 * them, with zeros between and after them, as tapes have.
 *
 * @module
 */

import { type Bytes, CHUNK, concat, DamageError, MAX_UNPACKED, streamOf, unpack } from "./bytes.ts";

/** Whether a file starts as gzip files do. */
export const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b;

/** Whether a member may start here: with DEFLATE, and no flag that does not exist. */
const isMember = (bytes: Uint8Array) => isGzip(bytes) && bytes[2] === 8 && bytes[3] < 0x20;

/** The shortest member: a header, a block of nothing, a checksum and a length. */
const MIN_MEMBER = 20;
/** Places that look like the end of a member and are none, before data are taken for damaged. */
const MAX_TRIES = 100;

/**
 * Unpacks a gzip file, all its members.
 *
 * @param what Starts messages.
 * @throws {InputError} If it is damaged, or gives more bytes than `limit`.
 */
export async function gunzip(
  bytes: Bytes,
  what: string,
  limit: number = MAX_UNPACKED,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (let at = 0; at < bytes.length;) {
    const { data, end } = await unpackMember(bytes, at, what, limit, length);
    parts.push(data);
    length += data.length;
    at = skipZeros(bytes, end);
  }
  return concat(parts);
}

/**
 * The member that starts at a place. Decompression streams do not tell where one ends, but refuse one
 * that is cut or that something follows: so the possible ends are tried, the likely ones first.
 */
async function unpackMember(
  bytes: Bytes,
  from: number,
  what: string,
  limit: number,
  before: number,
): Promise<{ data: Uint8Array<ArrayBuffer>; end: number }> {
  let failure: unknown, tries = 0;
  for (const end of memberEnds(bytes, from)) {
    try {
      const data = await unpack(streamOf(bytes, from, end), "gzip", what, limit, before);
      return { data, end };
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      failure ??= error;
      if (++tries === MAX_TRIES) break;
    }
  }
  throw failure;
}

/** Where a member may end: with the file, or before the next header, or before zeros there. */
function* memberEnds(bytes: Bytes, from: number): Generator<number> {
  yield bytes.length;
  for (let at = from + MIN_MEMBER; at < bytes.length; at += CHUNK) {
    const part = bytes.read(at, at + CHUNK + 3);
    for (let i = part.indexOf(0x1f); i >= 0 && i < CHUNK; i = part.indexOf(0x1f, i + 1)) {
      if (!isMember(part.subarray(i, i + 4))) continue;
      yield at + i;
      yield* endsInZeros(bytes, from, at + i);
    }
  }
  yield* endsInZeros(bytes, from, bytes.length);
}

/** Ends within the zeros before a place, of which a member of nothing has nine of its own. */
function* endsInZeros(bytes: Bytes, from: number, to: number): Generator<number> {
  let first = to;
  for (let at = to; first === at && at > from;) {
    const start = Math.max(from, at - CHUNK), part = bytes.read(start, at);
    first = start + part.findLastIndex((byte) => byte !== 0) + 1;
    at = start;
  }
  for (let end = first; end <= first + 9 && end < to; end++) yield end;
}

/** The first place from here on that is not zero. */
function skipZeros(bytes: Bytes, from: number): number {
  for (let at = from; at < bytes.length; at += CHUNK) {
    const other = bytes.read(at, at + CHUNK).findIndex((byte) => byte !== 0);
    if (other >= 0) return at + other;
  }
  return bytes.length;
}
