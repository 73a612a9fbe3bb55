/**
 * What image files tell of themselves: kind, size, whether they are in color, and whether their end
 * is there. It is read before a decoder sees them: a few damaged bytes cannot ask for all memory,
 * and a file that was cut off is not taken for a picture that is black or grey below.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { viewOf } from "../../formats/bytes.ts";

/** Kinds of image files. */
export type ImageKind = "png" | "jpeg" | "gif" | "webp" | "bmp";

/** What is known of an image before it is decoded. */
export interface ImageHeader {
  readonly kind: ImageKind;
  readonly width: number;
  readonly height: number;
  /** Whether it can only be grey, as far as the header tells. */
  readonly isGrey: boolean;
  /** Bits a channel, 8 but for some PNG files. */
  readonly depth: number;
  /** Whether a PNG file is of grey with alpha. */
  readonly isGreyAlpha: boolean;
}

/** Names of image files end in one of these. */
export const IMAGE_NAME: RegExp = /\.(png|jpe?g|jfif|gif|webp|bmp|dib)$/i;

/** Larger images than this are refused: 100 million pixels. */
const MAX_PIXELS = 1e8;

/** Names that damaged files have in messages. */
const kindNames: Record<ImageKind, string> = {
  ...{ png: "PNG", jpeg: "JPEG", gif: "GIF", webp: "WebP", bmp: "BMP" },
};

const ascii = (bytes: Uint8Array, from: number, to: number) =>
  String.fromCharCode(...bytes.subarray(from, to));

/** What is read of a header. */
type Size = Pick<ImageHeader, "width" | "height"> & Partial<ImageHeader> & {
  /** Whether the file ends too early, where its decoder would not notice. */
  readonly isCutOff?: boolean;
};

/** What a file is by its first bytes, whatever it is called. */
export function imageKind(bytes: Uint8Array): ImageKind | undefined {
  if (ascii(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "jpeg";
  if (/^GIF8[79]a/.test(ascii(bytes, 0, 6))) return "gif";
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 12) === "WEBP") return "webp";
  if (ascii(bytes, 0, 2) === "BM") return "bmp";
}

/**
 * Reads the header of an image file.
 *
 * @param bytes All of the file.
 * @throws {InputError} If it is of no known kind, damaged, cut off, or too large.
 */
export function readImageHeader(bytes: Uint8Array<ArrayBuffer>, what: string): ImageHeader {
  const kind = imageKind(bytes);
  if (!kind) {
    const why = bytes.length ? "it is no PNG, JPEG, GIF, WebP or BMP" : "it is empty";
    throw new InputError(`Cannot read ${what}: ${why}`);
  }
  const bad = (why: string) => new InputError(`Cannot read ${what} as ${kindNames[kind]}: ${why}`);
  let size: Size | undefined;
  try {
    size = readers[kind](bytes, viewOf(bytes));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  if (!size) throw bad("its header is damaged");
  const { isCutOff, ...header } = size, { width, height } = header;
  if (!width || !height) throw bad(`it is ${width}x${height}`);
  if (width * height > MAX_PIXELS) {
    throw bad(`${width}x${height} are more than ${MAX_PIXELS / 1e6} million pixels`);
  }
  if (isCutOff) throw bad("its data are damaged (the file is cut off before its end)");
  return { isGrey: false, depth: 8, isGreyAlpha: false, ...header, kind };
}

type Reader = (bytes: Uint8Array<ArrayBuffer>, view: DataView) => Size | undefined;

const readers: Record<ImageKind, Reader> = {
  png(bytes, view) {
    if (ascii(bytes, 12, 16) !== "IHDR") return;
    const color = view.getUint8(25);
    return {
      ...{ width: view.getUint32(16), height: view.getUint32(20), depth: view.getUint8(24) },
      ...{ isGrey: color === 0 || color === 4, isGreyAlpha: color === 4 },
    };
  },

  /**
   * The largest of all frame headers, since decoders differ in which they believe. Decoders make up
   * what is missing, so that the end of the image has to be there: as for libjpeg and Pillow.
   */
  jpeg(bytes, view) {
    let found: Size | undefined, isCutOff = true;
    for (let at = 2; (at = bytes.indexOf(0xff, at)) >= 0 && at + 2 <= bytes.length;) {
      const marker = bytes[at + 1];
      if (marker === 0xd9 && found) isCutOff = false;
      if (at + 4 > bytes.length) break;
      const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
      if (isFrame && at + 10 <= bytes.length) {
        const height = view.getUint16(at + 5), width = view.getUint16(at + 7);
        const isGrey = bytes[at + 9] === 1 && (found?.isGrey ?? true);
        if (!found || width * height > found.width * found.height) {
          found = { width, height, isGrey };
        } else found = { ...found, isGrey };
      }
      const hasLength = marker >= 0xc0 && marker !== 0xff && (marker < 0xd0 || marker > 0xd9);
      // Compressed data follow a scan's header: its bytes are gone through one by one.
      at += hasLength ? 2 + Math.max(2, view.getUint16(at + 2)) : marker === 0xff ? 1 : 2;
    }
    return found && { ...found, isCutOff };
  },

  /** The screen, or the first frame if that is larger: a decoder makes room for both. */
  gif(bytes, view) {
    const table = (flags: number) => flags & 0x80 ? 3 << ((flags & 7) + 1) : 0;
    let at = 13 + table(bytes[10]),
      width = view.getUint16(6, true),
      height = view.getUint16(8, true);
    while (bytes[at] === 0x21) {
      at += 2;
      while (view.getUint8(at)) at += 1 + bytes[at];
      at++;
    }
    if (bytes[at] !== 0x2c) return;
    width = Math.max(width, view.getUint16(at + 5, true));
    height = Math.max(height, view.getUint16(at + 7, true));
    return { width, height };
  },

  /** As libwebp does, it counts the bytes: decoders do not always miss the last ones. */
  webp(bytes, view) {
    const isCutOff = 8 + view.getUint32(4, true) > bytes.length, chunk = ascii(bytes, 12, 16);
    const triple = (at: number) => view.getUint16(at, true) + 65536 * view.getUint8(at + 2);
    if (chunk === "VP8X") return { width: 1 + triple(24), height: 1 + triple(27), isCutOff };
    if (chunk === "VP8 ") {
      const [width, height] = [26, 28].map((at) => view.getUint16(at, true) & 0x3fff);
      return { width, height, isCutOff };
    }
    if (chunk !== "VP8L") return;
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff), isCutOff };
  },

  bmp(_, view) {
    if (view.getUint32(14, true) === 12) {
      return { width: view.getUint16(18, true), height: view.getUint16(20, true) };
    }
    return { width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)) };
  },
};
