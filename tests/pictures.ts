/**
 * Picture files made by Pillow and NumPy, what is in them, and ways to make more.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { inMemory } from "../src/formats/bytes.ts";
import { extract, readZip } from "../src/formats/zip.ts";

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

/** All bytes in one array. */
export const join = (...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> =>
  new Uint8Array(parts.flatMap((part) => [...part]));

/** A .npy file, its header as NumPy writes it or with `fields` in place of that. */
export function makeNpy(
  descr: string,
  shape: readonly number[],
  data: Uint8Array | Float32Array | Float64Array | BigInt64Array | Uint32Array,
  fields = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`,
): Uint8Array<ArrayBuffer> {
  const header = bytesOf(fields.padEnd(117) + "\n"), { buffer, byteOffset, byteLength } = data;
  const start = new Uint8Array([0x93, ...bytesOf("NUMPY"), 1, 0, header.length, 0]);
  return join(start, header, new Uint8Array(buffer, byteOffset, byteLength));
}

/** What an archive is made of: files, or links that lead to a target. */
export interface Packed {
  readonly name: string | Uint8Array;
  readonly data?: Uint8Array;
  /** In a tar, the kind of the entry; `2` makes a symbolic link of one in a zip as well. */
  readonly kind?: string;
  readonly target?: string | Uint8Array;
  /** What the data of one in a zip are when they are inflated. */
  readonly inflated?: Uint8Array;
}

const bytesOf = (text: string | Uint8Array) =>
  typeof text === "string" ? new TextEncoder().encode(text) : text;

const listOf = (files: Readonly<Record<string, Uint8Array>> | readonly Packed[]) =>
  Array.isArray(files)
    ? files as readonly Packed[]
    : Object.entries(files).map(([name, data]): Packed => ({ name, data }));

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

/** A tar archive, as CIFAR's are. */
export function makeTar(
  files: Readonly<Record<string, Uint8Array>> | readonly Packed[],
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], encoder = new TextEncoder();
  for (const { name, data = new Uint8Array(), kind = "0", target = "" } of listOf(files)) {
    const header = new Uint8Array(512), octal = (n: number) => n.toString(8).padStart(11, "0");
    header.set(bytesOf(name));
    header.set(encoder.encode("0000644\0"), 100);
    header.set(encoder.encode(octal(data.length)), 124);
    header.set(encoder.encode(kind), 156);
    header.set(bytesOf(target), 157);
    header.set(encoder.encode("ustar  \0"), 257);
    header.fill(0x20, 148, 156);
    const sum = header.reduce((a, b) => a + b, 0);
    header.set(encoder.encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
    parts.push(header, data, new Uint8Array((512 - data.length % 512) % 512));
  }
  return join(...parts, new Uint8Array(1024));
}

/** A zip archive with its files deflated. */
export async function deflateZip(archive: Uint8Array<ArrayBuffer>) {
  const files: Packed[] = [];
  for (const entry of await readZip(inMemory(archive), "the archive")) {
    const inflated = await extract(inMemory(archive), entry, "the archive");
    const stream = new Blob([inflated]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const data = new Uint8Array(await new Response(stream).arrayBuffer());
    files.push({ name: entry.name, data, inflated });
  }
  return makeZip(files);
}

/** A zip archive of stored files, as Unix makes them. */
export function makeZip(
  files: Readonly<Record<string, Uint8Array>> | readonly Packed[],
  comment: string | Uint8Array = "",
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, target, data = bytesOf(target ?? ""), kind, inflated } of listOf(files)) {
    const named = bytesOf(name), mode = kind === "2" ? 0xa1ff : 0x81a4, whole = inflated ?? data;
    const common = fields(
      26,
      [0, 2, 20],
      [4, 2, inflated ? 8 : 0],
      [10, 4, crc32(whole)],
      [14, 4, data.length],
      [18, 4, whole.length],
      [22, 2, named.length],
    );
    const local = join(bytesOf("PK\x03\x04"), common, named, data);
    const own = fields(14, [8, 2, mode], [10, 4, offset]);
    directory.push(join(bytesOf("PK\x01\x02"), new Uint8Array([20, 3]), common, own, named));
    parts.push(local);
    offset += local.length;
  }
  const list = join(...directory), text = bytesOf(comment), count = directory.length;
  const numbers = fields(
    18,
    [4, 2, count],
    [6, 2, count],
    [8, 4, list.length],
    [12, 4, offset],
    [16, 2, text.length],
  );
  return join(...parts, list, bytesOf("PK\x05\x06"), numbers, text);
}

/** Little-endian numbers of two or four bytes, at places among zeros. */
function fields(size: number, ...numbers: [at: number, size: 2 | 4, value: number][]) {
  const view = new DataView(new ArrayBuffer(size));
  for (const [at, size, value] of numbers) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
  }
  return new Uint8Array(view.buffer);
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

/** A file of CIFAR for Python as Python 2 pickled it: an array of bytes, and lists of numbers or text. */
export function makeBatch(
  pixels: Uint8Array,
  lists: Record<string, readonly (number | string)[]>,
): Uint8Array<ArrayBuffer> {
  const size = new Uint8Array(4), count = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, pixels.length, true);
  new DataView(count.buffer).setUint32(0, pixels.length / 3072, true);
  const text = (text: string) => `U${String.fromCharCode(text.length)}${text}`;
  const parts: (string | Uint8Array)[] = [
    `\x80\x02}(${text("data")}cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n`,
    `(K\x00tU\x01btR(K\x01(J`,
    count,
    "M\x00\x0ctcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\nT",
    size,
    pixels,
    "tb",
    ...Object.entries(lists).map(([name, list]) => {
      const items = list.map((x) => typeof x === "string" ? text(x) : `K${String.fromCharCode(x)}`);
      return `${text(name)}](${items.join("")}e`;
    }),
    "u.",
  ];
  return Uint8Array.from(
    parts.flatMap((p) => typeof p === "string" ? [...p].map((c) => c.charCodeAt(0)) : [...p]),
  );
}
