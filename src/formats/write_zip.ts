/**
 * Writing of zip archives whose files are stored as they are, as NumPy writes .npz.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";

/** A file of an archive. */
export interface ZipFile {
  /** Its path within, with slashes. */
  readonly name: string;
  /** What is in it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Sizes and offsets have 32 bits. */
const MAX_BYTES = 2 ** 32 - 1;
/** The version of the format that is needed to unpack, 2.0, and the day before which there are none. */
const VERSION = 20, FIRST_DAY = 0x21;

/**
 * The parts of an archive, in order. The same files give the same bytes: no time is written.
 *
 * @throws {RangeError} While its parts are made, if they are more than 4 GiB.
 */
export function* encodeZip(files: readonly ZipFile[]): Generator<Uint8Array<ArrayBuffer>> {
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let offset = 0, directorySize = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name), { length } = bytes;
    if (offset + length > MAX_BYTES) throw new RangeError("Cannot write a zip beyond 4 GiB");
    // What both records have: no flags, stored, no time, checksum, sizes, length of the name.
    const shared: Field[] = [
      ...[VERSION, 0, 0, 0, FIRST_DAY].map((n): Field => [n, 2]),
      ...[[crc32(bytes), 4], [length, 4], [length, 4], [path.length, 2], [0, 2]] as Field[],
    ];
    const entry = pack([[0x02014b50, 4], [VERSION, 2], ...shared, [0, 2], [0, 2], [0, 2], [0, 4], [
      offset,
      4,
    ]]);
    directory.push(entry, path);
    directorySize += entry.length + path.length;
    const head = pack([[0x04034b50, 4], ...shared]);
    yield head;
    yield path;
    yield bytes;
    offset += head.length + path.length + length;
  }
  yield* directory;
  const count: Field = [files.length, 2];
  yield pack([
    ...[[0x06054b50, 4], [0, 2], [0, 2], count, count] as Field[],
    ...[[directorySize, 4], [offset, 4], [0, 2]] as Field[],
  ]);
}

/** A number, and how many bytes it takes. */
type Field = readonly [value: number, bytes: 2 | 4];

/** Little-endian integers one after the other. */
function pack(fields: readonly Field[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(fields.reduce((n, [, bytes]) => n + bytes, 0)));
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}
