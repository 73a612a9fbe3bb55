/**
 * How photographs are to be turned: EXIF's orientation, which decoders heed in JPEG and WebP but not
 * in PNG.
 *
 * @module
 */

import { viewOf } from "../../formats/bytes.ts";
import type { Raster } from "../raster.ts";

const ORIENTATION = 0x0112, SHORT = 3;

/** The orientation that a PNG file has in its chunk eXIf, 1 to 8; 1, as it is, if it has none. */
export function pngOrientation(bytes: Uint8Array<ArrayBuffer>): number {
  const view = viewOf(bytes);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at),
      kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "eXIf") return exifOrientation(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return 1;
}

/** The orientation in EXIF data, which are a TIFF file; 1 if they do not say it, or are damaged. */
function exifOrientation(bytes: Uint8Array<ArrayBuffer>): number {
  // Some programs write what EXIF data start with in JPEG.
  const start = String.fromCharCode(...bytes.subarray(0, 4)) === "Exif" ? 6 : 0;
  const view = viewOf(bytes.subarray(start)),
    little = view.byteLength > 0 && view.getUint8(0) === 0x49;
  if (view.byteLength < 8 || view.getUint16(2, little) !== 42) return 1;
  const first = view.getUint32(4, little);
  if (first + 2 > view.byteLength) return 1;
  const count = view.getUint16(first, little);
  for (let at = first + 2, i = 0; i < count && at + 12 <= view.byteLength; i++, at += 12) {
    if (view.getUint16(at, little) !== ORIENTATION) continue;
    const value = view.getUint16(at + 2, little) === SHORT ? view.getUint16(at + 8, little) : 1;
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

/** The picture as it is to be seen. */
export function turn(raster: Raster, orientation: number): Raster {
  if (orientation === 1) return raster;
  const { width, height, channels, data } = raster, out = new Uint8Array(data.length);
  // From 5 on, rows are columns; then each axis may go the other way.
  const isTurned = orientation >= 5, columns = isTurned ? height : width;
  const isMirrored = [2, 3, 7, 8].includes(orientation);
  const isUpsideDown = [3, 4, 6, 7].includes(orientation);
  for (let i = 0, to = 0; to < out.length; i++) {
    const x = i % columns, y = (i - x) / columns;
    const [column, row] = isTurned ? [y, x] : [x, y];
    const fromX = isMirrored ? width - 1 - column : column;
    const fromY = isUpsideDown ? height - 1 - row : row;
    for (let c = 0, at = (fromY * width + fromX) * channels; c < channels; c++) {
      out[to++] = data[at++];
    }
  }
  return { width: columns, height: data.length / channels / columns, channels, data: out };
}
