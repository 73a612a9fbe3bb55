/**
 * Decoding of image files with Deno's decoders: PNG, JPEG, the first frame of GIF and WebP, BMP. The
 * EXIF orientation is applied, which Deno does itself except in PNG.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type ImageHeader, readImageHeader } from "../../data/datasets/image.ts";
import { pngOrientation, turn } from "../../data/datasets/orientation.ts";
import type { Raster } from "../../data/raster.ts";

/**
 * An image file as a picture.
 *
 * @param what What it is called, for messages.
 * @throws {InputError} If it is of no known kind, or damaged.
 */
export async function decodeImage(bytes: Uint8Array<ArrayBuffer>, what: string): Promise<Raster> {
  const header = readImageHeader(bytes, what), { kind } = header;
  const bad = (why: string) =>
    new InputError(
      `Cannot read ${what} as ${kind === "webp" ? "WebP" : kind.toUpperCase()}: ${why}`,
    );
  let bitmap: ImageBitmap;
  try {
    bitmap = await openBitmap(new Blob([bytes], { type: `image/${kind}` }), header);
  } catch (error) {
    throw bad(`its data are damaged (${reasonOf(error)})`);
  }
  const { width, height } = bitmap;
  try {
    const raster = await readBitmap(bitmap, header);
    return kind === "png" ? turn(raster, pngOrientation(bytes)) : raster;
  } catch (error) {
    throw bad(`${width}x${height} pixels of it cannot be used (${reasonOf(error)})`);
  } finally {
    bitmap.close();
  }
}

/**
 * Decodes a file. Its colors are converted from its color profile to sRGB, unless it is grey or the
 * profile cannot be used: then the profile is ignored, as browsers do.
 */
async function openBitmap(file: Blob, { isGrey }: ImageHeader): Promise<ImageBitmap> {
  const ignoring = () => createImageBitmap(file, { colorSpaceConversion: "none" });
  if (isGrey) return await ignoring();
  // What is wrong with other things than the profile is wrong again.
  return await createImageBitmap(file).catch(ignoring);
}

const reasonOf = (error: unknown) =>
  (error as Error).message.replace(/^Cannot decode image '?|'$/g, "").slice(0, 200);

/** Where Deno gives away the pixels of a bitmap, for its own tests and WebGPU. */
const PIXELS = Symbol.for("Deno_bitmapData");

/** The pixels of a bitmap, which no standard lets one have where there is no 2D canvas. */
async function readBitmap(
  bitmap: ImageBitmap,
  { depth, isGreyAlpha }: ImageHeader,
): Promise<Raster> {
  const { width, height } = bitmap;
  const pixels = (bitmap as unknown as Record<symbol, () => Uint8Array<ArrayBuffer>>)[PIXELS];
  if (!pixels) {
    if (depth > 8 || isGreyAlpha) {
      throw new Error("this Deno can read 8 bits of grey or color only");
    }
    return await readByBmp(bitmap);
  }
  const data = pixels.call(bitmap), size = width * height;
  if (depth < 16) return { width, height, channels: checkChannels(data.length / size), data };
  // Numbers of 16 bits in the order of the machine; the nearest of 8 bits.
  const wide = new Uint16Array(data.buffer, data.byteOffset, data.length / 2);
  return {
    ...{ width, height, channels: checkChannels(wide.length / size) },
    data: Uint8Array.from(wide, (value) => Math.round(value / 257)),
  };
}

function checkChannels(channels: number): number {
  if (![1, 2, 3, 4].includes(channels)) throw new Error(`it has ${channels} channels`);
  return channels;
}

/**
 * The standard's way to pixels, for a Deno that does not give them away: a canvas that encodes its
 * bitmap. It costs as much again, knows neither grey with alpha nor 16 bits, and Deno 2.9 does not
 * free what it takes.
 */
export async function readByBmp(bitmap: ImageBitmap): Promise<Raster> {
  const { width, height } = bitmap, canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("bitmaprenderer") as unknown as {
    transferFromImageBitmap(bitmap: ImageBitmap | null): void;
  };
  context.transferFromImageBitmap(bitmap);
  const blob = await canvas.convertToBlob({ type: "image/bmp" });
  context.transferFromImageBitmap(null);
  const view = new DataView(await blob.arrayBuffer());
  const start = view.getUint32(10, true), channels = checkChannels(view.getUint16(28, true) / 8);
  const stride = Math.ceil(width * channels / 4) * 4;
  const data = new Uint8Array(width * height * channels);
  // Rows go from the bottom up, and colors from blue to red.
  const order = channels < 3 ? [0] : [2, 1, 0, 3].slice(0, channels);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, at = start + (height - 1 - y) * stride; x < width; x++, at += channels) {
      for (const c of order) data[to++] = view.getUint8(at + c);
    }
  }
  return { width, height, channels, data };
}
