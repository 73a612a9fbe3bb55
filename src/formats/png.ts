/**
 * PNG files as the chunks that they are made of.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";

/** What files begin with. */
export const SIGNATURE: Uint8Array<ArrayBuffer> = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);

/** Whether a file starts as PNG files do. */
export const isPng = (bytes: Uint8Array): boolean =>
  SIGNATURE.every((byte, i) => bytes[i] === byte);

const decoder = new TextDecoder("latin1");

/** A part of a PNG file. */
export interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

/** The parts of a PNG file; of one that is cut off, those that are whole. */
export function* chunksOf(png: Uint8Array): Generator<Chunk> {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  for (let at = SIGNATURE.length; at + 12 <= png.length;) {
    const length = view.getUint32(at), type = decoder.decode(png.subarray(at + 4, at + 8));
    if (at + 12 + length > png.length) return;
    yield { type, data: png.subarray(at + 8, at + 8 + length) };
    at += 12 + length;
  }
}

/** The bytes of a part. */
export function encodeChunk({ type, data }: Chunk): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** What a text chunk can hold, which is Latin-1: other characters become JSON escapes. */
export const plainText = (text: string): string =>
  text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
