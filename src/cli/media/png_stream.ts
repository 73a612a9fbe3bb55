/**
 * PNG files that are written row by row, for pictures that would not fit into memory twice.
 *
 * @module
 */

import { concat } from "../../formats/bytes.ts";
import { type Chunk, encodeChunk, SIGNATURE } from "../../formats/png.ts";
import { textChunk } from "../../formats/png_texts.ts";
import { writeAll } from "../terminal/files.ts";

/** What is said of a picture before its rows. */
export interface PngHeader {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** 1 for grey, 3 for red, green and blue. */
  readonly channels: 1 | 3;
  /** Texts that it carries along, by their names. */
  readonly texts: Readonly<Record<string, string>>;
}

/** Bits a channel. */
const DEPTH = 8;
/** Types of color in the header. */
const COLOR = { 1: 0, 3: 2 } as const;
/** Kinds of filters, which guess a byte by those on the left, above, and above on the left. */
const FILTERS = 5;

/**
 * Writes a picture.
 *
 * @param rows Whole rows of bytes from the top, any number at a time.
 */
export async function writePng(
  file: Pick<Deno.FsFile, "write">,
  { width, height, channels, texts }: PngHeader,
  rows: AsyncIterable<Uint8Array>,
): Promise<void> {
  const writeChunk = (chunk: Chunk) => writeAll(file, encodeChunk(chunk));
  const write = (type: string, data: Uint8Array) => writeChunk({ type, data });
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, DEPTH);
  header.setUint8(9, COLOR[channels]);
  await writeAll(file, SIGNATURE);
  await write("IHDR", new Uint8Array(header.buffer));
  for (const [name, text] of Object.entries(texts)) await writeChunk(textChunk(name, text));
  const packed = ReadableStream.from(inBlocks(filtered(rows, width * channels, channels)))
    .pipeThrough(new CompressionStream("deflate"));
  for await (const data of inBlocks(packed)) await write("IDAT", data);
  await write("IEND", new Uint8Array());
}

/** Bytes that are compressed or written together: every part costs some of its own. */
const BLOCK = 1 << 20;

/** The same bytes in larger parts. */
async function* inBlocks(
  parts: AsyncIterable<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let held: Uint8Array<ArrayBuffer>[] = [], bytes = 0;
  for await (const part of parts) {
    held.push(part);
    bytes += part.length;
    if (bytes < BLOCK) continue;
    yield concat(held);
    held = [], bytes = 0;
  }
  if (held.length) yield concat(held);
}

/** Rows behind the number of the filter that leaves the least of them. */
async function* filtered(
  rows: AsyncIterable<Uint8Array>,
  stride: number,
  channels: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let above: Uint8Array = new Uint8Array(stride);
  const tries = Array.from({ length: FILTERS }, (_, kind) => {
    const line = new Uint8Array(stride + 1);
    line[0] = kind;
    return line;
  });
  for await (const part of rows) {
    for (let at = 0; at < part.length; at += stride) {
      const row = part.slice(at, at + stride);
      const costs = tries.map((line, kind) => filterRow(kind, row, above, channels, line));
      yield tries[costs.indexOf(Math.min(...costs))].slice();
      above = row;
    }
  }
}

/** Filters a row; returns the sum of what is left, as signed bytes without their signs. */
function filterRow(
  kind: number,
  row: Uint8Array,
  above: Uint8Array,
  channels: number,
  out: Uint8Array,
): number {
  let cost = 0;
  for (let i = 0; i < row.length; i++) {
    const left = i < channels ? 0 : row[i - channels];
    const up = above[i], corner = i < channels ? 0 : above[i - channels];
    const guess = [0, left, up, (left + up) >> 1, kind === 4 ? paeth(left, up, corner) : 0][kind];
    const rest = out[i + 1] = row[i] - guess;
    cost += Math.abs((rest << 24) >> 24);
  }
  return cost;
}

/** The neighbour that is nearest to the plane through all three (Paeth 1991). */
function paeth(left: number, up: number, corner: number): number {
  const plane = left + up - corner;
  const [a, b, c] = [Math.abs(plane - left), Math.abs(plane - up), Math.abs(plane - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
