/**
 * The texts in a PNG file.
 *
 * @module
 */

import { chunksOf } from "../../formats/png.ts";

const latin1 = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes);

/** The longest text that is unpacked. */
const MAX_BYTES = 1 << 20;

/** Unpacks deflated bytes; `undefined` if they are damaged or too many. */
async function inflate(bytes: Uint8Array): Promise<Uint8Array | undefined> {
  const stream = new Blob([new Uint8Array(bytes)]).stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const out: number[] = [];
  try {
    for await (const part of stream) {
      if (out.length + part.length > MAX_BYTES) return undefined;
      for (const byte of part) out.push(byte);
    }
  } catch {
    return undefined;
  }
  return Uint8Array.from(out);
}

/** The texts by their keywords, packed or not; what is damaged is left out. */
export async function readTexts(png: Uint8Array): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
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
