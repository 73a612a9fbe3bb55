/**
 * Animated PNG, assembled from one PNG per frame. Viewers without APNG support show the first frame.
 *
 * @module
 */

import { chunksOf, encodeChunk, SIGNATURE } from "../../formats/png.ts";

/** Packs big-endian integers. */
function pack(...fields: readonly (readonly [value: number, bytes: 1 | 2 | 4])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(fields.reduce((n, [, bytes]) => n + bytes, 0)));
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 4) view.setUint32(at, value);
    else if (bytes === 2) view.setUint16(at, value);
    else view.setUint8(at, value);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/**
 * Assembles an animation from frames of equal size.
 *
 * @param frames PNGs of the same encoder; the text chunks of the first are kept.
 * @param durations Milliseconds of each frame.
 */
export function animatePng(
  frames: readonly Uint8Array[],
  durations: readonly number[],
): Uint8Array {
  const parts = [frames[0].subarray(0, SIGNATURE.length)];
  let sequence = 0;
  frames.forEach((png, i) => {
    const chunks = [...chunksOf(png)], header = chunks.find(({ type }) => type === "IHDR")!;
    const size = new DataView(header.data.buffer, header.data.byteOffset);
    const add = (type: string, data: Uint8Array) => void parts.push(encodeChunk({ type, data }));
    if (i === 0) {
      add("IHDR", header.data);
      // Loops forever.
      add("acTL", pack([frames.length, 4], [0, 4]));
      for (const { type, data } of chunks) if (type === "tEXt" || type === "iTXt") add(type, data);
    }
    const place = [[size.getUint32(0), 4], [size.getUint32(4), 4], [0, 4], [0, 4]] as const;
    const time = [[Math.round(durations[i]), 2], [1000, 2]] as const;
    add("fcTL", pack([sequence++, 4], ...place, ...time, [0, 1], [0, 1]));
    for (const { type, data } of chunks) {
      if (type !== "IDAT") continue;
      if (i === 0) add("IDAT", data);
      else add("fdAT", new Uint8Array([...pack([sequence++, 4]), ...data]));
    }
  });
  parts.push(encodeChunk({ type: "IEND", data: new Uint8Array() }));
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}
