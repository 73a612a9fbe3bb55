/**
 * Texts in PNG files: what made a picture travels with it.
 *
 * @module
 */

import { crc32 } from "../formats/crc32.ts";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** Bytes of the signature and of the header behind it. */
const HEAD = 8 + 25;

const latin1 = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));

/** Text chunks are Latin-1; other characters become JSON escapes. */
const plain = (text: string) =>
  text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

function encodeText(name: string, text: string): Uint8Array<ArrayBuffer> {
  const body = latin1(`tEXt${name}\0${plain(text)}`), chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(4 + body.length, crc32(body));
  return chunk;
}

/** A PNG with texts. */
export async function withTexts(png: Blob, texts: Readonly<Record<string, string>>): Promise<Blob> {
  const bytes = new Uint8Array(await png.arrayBuffer());
  const chunks = Object.entries(texts).map(([name, text]) => encodeText(name, text));
  return new Blob([bytes.subarray(0, HEAD), ...chunks, bytes.subarray(HEAD)], {
    type: "image/png",
  });
}

/** The texts of a PNG; none if it is no PNG. */
export async function readTexts(file: Blob): Promise<Record<string, string>> {
  const bytes = new Uint8Array(await file.arrayBuffer()), texts: Record<string, string> = {};
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) return texts;
  const view = new DataView(bytes.buffer), decoder = new TextDecoder("latin1");
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), type = decoder.decode(bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length || type === "IEND") break;
    if (type === "tEXt") {
      const text = decoder.decode(bytes.subarray(at + 8, at + 8 + length));
      const end = text.indexOf("\0");
      if (end > 0) texts[text.slice(0, end)] = text.slice(end + 1);
    }
    at += 12 + length;
  }
  return texts;
}
