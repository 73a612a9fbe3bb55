/**
 * Picture files made by Pillow and NumPy, what is in them, and ways to make more.
 *
 * @module
 */

import { crc32 } from "node:zlib";

const folder = new URL("./fixtures/pictures/", import.meta.url);

/** Where the files are. */
export const picturesUrl = folder;

/** A file's bytes. */
export const pictureFile = (name: string): Promise<Uint8Array<ArrayBuffer>> =>
  Deno.readFile(new URL(name, folder));

/** A file's JSON. */
export async function pictureJson<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(name, folder)));
}

/** What Pillow makes of an image file. */
export interface Expected {
  readonly shape: readonly [number, number, number];
  readonly data: readonly number[];
  /** How far a decoder may be off: 0, but for lossy formats. */
  readonly tolerance: number;
}

/** Bytes after gzip. */
export async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A PNG or JPEG file with a color profile put into it. */
export async function withProfile(
  file: Uint8Array<ArrayBuffer>,
  profile: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const ascii = (text: string) => new TextEncoder().encode(text), isPng = file[0] === 0x89;
  const put = (at: number, ...parts: Uint8Array[]) => {
    const bytes = [...file.subarray(0, at), ...parts.flatMap((part) => [...part])];
    return new Uint8Array([...bytes, ...file.subarray(at)]);
  };
  if (isPng) {
    const zlib = new Blob([profile]).stream().pipeThrough(new CompressionStream("deflate"));
    const packed = new Uint8Array(await new Response(zlib).arrayBuffer());
    const data = new Uint8Array([...ascii("iCCPx\0\0"), ...packed]), ends = new Uint8Array(8);
    new DataView(ends.buffer).setUint32(0, data.length - 4);
    new DataView(ends.buffer).setUint32(4, crc32(data));
    // Behind the header, which takes 33 bytes.
    return put(33, ends.subarray(0, 4), data, ends.subarray(4));
  }
  const data = new Uint8Array([...ascii("ICC_PROFILE\0"), 1, 1, ...profile]);
  const length = data.length + 2;
  return put(2, new Uint8Array([0xff, 0xe2, length >> 8, length & 255]), data);
}

/** A tar archive of files, as CIFAR's are. */
export function makeTar(files: Readonly<Record<string, Uint8Array>>): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], encoder = new TextEncoder();
  for (const [name, data] of Object.entries(files)) {
    const header = new Uint8Array(512), octal = (n: number) => n.toString(8).padStart(11, "0");
    header.set(encoder.encode(name));
    header.set(encoder.encode("0000644\0"), 100);
    header.set(encoder.encode(octal(data.length)), 124);
    header.set(encoder.encode("0ustar  \0"), 156);
    header.fill(0x20, 148, 156);
    const sum = header.reduce((a, b) => a + b, 0);
    header.set(encoder.encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
    parts.push(header, data, new Uint8Array((512 - data.length % 512) % 512));
  }
  parts.push(new Uint8Array(1024));
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

/** An uncompressed BMP of one color. */
export function makeBmp(width: number, height: number, rgb: readonly number[]) {
  const stride = Math.ceil(3 * width / 4) * 4, bytes = new Uint8Array(54 + stride * height);
  const view = new DataView(bytes.buffer);
  bytes.set([0x42, 0x4d]);
  [[2, bytes.length], [10, 54], [14, 40], [18, width], [22, height], [34, stride * height]].forEach(
    ([at, value]) => view.setUint32(at, value, true),
  );
  view.setUint16(26, 1, true);
  view.setUint16(28, 24, true);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) bytes.set(rgb.toReversed(), 54 + y * stride + 3 * x);
  }
  return bytes;
}
