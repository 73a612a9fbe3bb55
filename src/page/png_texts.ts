/**
 * Texts in PNG files: what made a picture travels with it.
 *
 * @module
 */

import { chunksOf, encodeChunk, plainText } from "../formats/png.ts";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** Bytes of the signature and of the header behind it. */
const HEAD = 8 + 25;

/** A PNG with texts. */
export async function withTexts(png: Blob, texts: Readonly<Record<string, string>>): Promise<Blob> {
  const bytes = new Uint8Array(await png.arrayBuffer()), encoder = new TextEncoder();
  const chunks = Object.entries(texts).map(([name, text]) =>
    encodeChunk({ type: "tEXt", data: encoder.encode(`${name}\0${plainText(text)}`) })
  );
  return new Blob([bytes.subarray(0, HEAD), ...chunks, bytes.subarray(HEAD)], {
    type: "image/png",
  });
}

/** The texts of a PNG; none if it is no PNG. */
export async function readTexts(file: Blob): Promise<Record<string, string>> {
  const bytes = new Uint8Array(await file.arrayBuffer()), texts: Record<string, string> = {};
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) return texts;
  const decoder = new TextDecoder("latin1");
  for (const { type, data } of chunksOf(bytes)) {
    if (type === "IEND") break;
    if (type !== "tEXt") continue;
    const text = decoder.decode(data), end = text.indexOf("\0");
    if (end > 0) texts[text.slice(0, end)] = text.slice(end + 1);
  }
  return texts;
}
