/**
 * Texts in PNG files: what made a picture travels with it.
 *
 * @module
 */

import { concat, inMemory, streamOf, unpack } from "./bytes.ts";
import { type Chunk, chunksOf, encodeChunk, isPng, SIGNATURE } from "./png.ts";
import { XMP } from "./xmp.ts";

/** Bytes before the first chunk that may be a text: the signature, and the header. */
const HEAD = SIGNATURE.length + 25;
/** The longest text that is unpacked. */
const MAX_BYTES = 1 << 20;

const latin1 = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes);
const isLatin1 = (text: string) => /^[\0-\xff]*$/.test(text);
const toLatin1 = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));

/** A text by its keyword as a chunk. */
export function textChunk(name: string, text: string): Chunk {
  // XMP is read in chunks of UTF-8 alone.
  if (isLatin1(text) && name !== XMP) return { type: "tEXt", data: toLatin1(`${name}\0${text}`) };
  const data = concat([toLatin1(`${name}\0\0\0\0\0`), new TextEncoder().encode(text)]);
  return { type: "iTXt", data };
}

/** A PNG with further texts. */
export function withTexts(
  png: Uint8Array<ArrayBuffer>,
  texts: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const chunks = Object.entries(texts).map(([name, text]) => encodeChunk(textChunk(name, text)));
  return concat([png.subarray(0, HEAD), ...chunks, png.subarray(HEAD)]);
}

/** The texts of a PNG by their keywords, packed or not; what is damaged is left out, or no PNG. */
export async function readTexts(png: Uint8Array): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
  if (!isPng(png)) return texts;
  for (const { type, data } of chunksOf(png)) {
    const end = data.indexOf(0), name = latin1(data.subarray(0, end));
    if (end < 1) continue;
    if (type === "tEXt") texts[name] = latin1(data.subarray(end + 1));
    if (type === "zTXt") {
      const text = await inflate(data.subarray(end + 2));
      if (text) texts[name] = latin1(text);
    }
    if (type !== "iTXt") continue;
    // Behind two numbers there are a language and the translated keyword.
    const language = data.indexOf(0, end + 3), start = data.indexOf(0, language + 1) + 1;
    if (language < 0 || !start) continue;
    const text = data[end + 1] ? await inflate(data.subarray(start)) : data.subarray(start);
    if (text) texts[name] = new TextDecoder().decode(text);
  }
  return texts;
}

/** Unpacks deflated bytes; `undefined` if they are damaged or too many. */
const inflate = (bytes: Uint8Array): Promise<Uint8Array | undefined> =>
  unpack(streamOf(inMemory(bytes.slice())), "deflate", "a text", MAX_BYTES).catch(() => undefined);
