/**
 * Bytes at hand or on a disk, and their unpacking with a limit.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatBytes } from "../units.ts";

/** Bytes of which parts can be read. */
export interface Bytes {
  /** How many there are. */
  readonly length: number;
  /** Whether reading them costs nothing. */
  readonly isInMemory: boolean;
  /** A part of them, shorter if they end before. */
  read(from: number, to: number): Uint8Array<ArrayBuffer>;
}

/** Bytes in memory. */
export const inMemory = (bytes: Uint8Array<ArrayBuffer>): Bytes => ({
  ...{ length: bytes.length, isInMemory: true },
  read: (from, to) => bytes.subarray(from, to),
});

/** A view for reading numbers. */
export const viewOf = (bytes: Uint8Array<ArrayBuffer>): DataView<ArrayBuffer> =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** More unpacked bytes than this are taken for a trap. */
export const MAX_UNPACKED: number = 2 ** 32;

/** Whether a file starts as gzip files do. */
export const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b;

/**
 * Unpacks a stream.
 *
 * @param limit How many bytes it may give.
 * @throws {InputError} If it gives more, or its data are damaged. `what` starts the message.
 */
export async function unpack(
  packed: ReadableStream<Uint8Array<ArrayBuffer>>,
  format: CompressionFormat,
  what: string,
  limit: number = MAX_UNPACKED,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  try {
    for await (const part of packed.pipeThrough(new DecompressionStream(format))) {
      length += part.length;
      if (length > limit) break;
      parts.push(part);
    }
  } catch (error) {
    const name = format === "gzip" ? "gzip" : "compressed";
    throw new InputError(`${what}: its ${name} data are damaged (${(error as Error).message})`);
  }
  if (length > limit) {
    throw new InputError(`${what}: it unpacks to more than ${formatBytes(limit)}`);
  }
  const whole = new Uint8Array(length);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** Bytes as a stream. */
export const streamOf = (bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> =>
  new ReadableStream({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });
