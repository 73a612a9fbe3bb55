/**
 * Pictures as files.
 *
 * @module
 */

import { extname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import { writeSafetensors } from "../../formats/safetensors.ts";
import { makeGrid, makePicture, type Picture } from "../../sample/pixels.ts";
import { pictureSize, type Samples } from "../../sample/options.ts";
import { type Shape, sizeOf } from "../../shape.ts";
import { fit, type Raster, writeImage } from "../../data/raster.ts";
import { animatePng } from "./apng.ts";
import { decodeImage } from "../data/decode.ts";
import {
  checkFolder,
  checkWritable,
  kindOf,
  makeFolder,
  readFile,
  writeWhole,
} from "../terminal/files.ts";
import { packageName, version } from "../terminal/version.ts";

/** The facts that a picture carries along: model, seed, steps. */
export type Provenance = Readonly<Record<string, string | number>>;

/** What an output path asks for. */
export type OutputKind = "grid" | "animation" | "tensors" | "folder";

/**
 * Decides by its name what a path asks for, and checks that it can be written.
 *
 * @throws {InputError} If the name ends in something unknown, or nothing can be written there.
 */
export async function checkOutput(path: string): Promise<OutputKind> {
  const kinds: Record<string, OutputKind> = {
    ".png": "grid",
    ".gif": "animation",
    ".apng": "animation",
    ".safetensors": "tensors",
    "": "folder",
  };
  const isFolder = /[/\\]$/.test(path) || await kindOf(path) === "folder";
  const kind = isFolder ? "folder" : kinds[extname(path).toLowerCase()];
  if (!kind) {
    throw new InputError(
      `Cannot write ${path}: give a name that ends in .png (a grid), .gif or .apng (the ` +
        "denoising) or .safetensors (raw floats), or a folder",
    );
  }
  await (kind === "folder" ? checkFolder(path) : checkWritable(path));
  if (kind !== "tensors") await preparePictures();
  return kind;
}

/** Loads what writes pictures. It wants permissions of its own: better now than after the work. */
export async function preparePictures(): Promise<void> {
  await import("imagescript");
}

/** Pixels on a side of a grid at most: 268 MB, and more than anybody looks at. */
const MAX_SIDE = 8192;
/** Pixels on a side that enlarging does not go beyond. */
const GOOD_SIDE = 2048;
/** Images in an animation at most: it holds every frame of every image. */
const MAX_ANIMATED = 64;
/** Bytes of all images together at most. */
const MAX_BYTES = 2 ** 31;

/**
 * Checks that so many images fit into the output, before anything is computed.
 *
 * @throws {InputError} If not.
 */
export function checkFits(kind: OutputKind, images: Omit<Samples, "data">): void {
  const { count, shape } = images, channels = shape[shape.length - 1];
  const refuse = (why: string) => new InputError(`Cannot make ${count} images: ${why}`);
  if (4 * count * sizeOf(shape) > MAX_BYTES) {
    throw refuse("they take more than 2 GiB; make fewer at a time, with other seeds");
  }
  if (kind !== "tensors" && shape.length !== 3) {
    throw new InputError(
      "The model's items are no pictures; give a name that ends in .safetensors",
    );
  }
  if (kind === "animation" && count > MAX_ANIMATED) {
    throw refuse(`an animation shows ${MAX_ANIMATED} at most`);
  }
  if (kind === "grid" && gridSide(images) > MAX_SIDE) {
    throw refuse("one .png cannot hold them; give a folder, or a name that ends in .safetensors");
  }
  if (kind !== "tensors" && channels !== 1 && channels !== 3) {
    throw new InputError(
      `Cannot draw images of ${channels} channels; give a name that ends in .safetensors`,
    );
  }
}

/** Pixels on the longer side of a grid that is not enlarged, about. */
function gridSide(images: Omit<Samples, "data">): number {
  const { height, width } = pictureSize(images);
  return Math.ceil(Math.sqrt(images.count)) * (Math.max(height, width) + 1) + 1;
}

/** The images in a grid, small ones enlarged so that they can be seen. */
export function drawGrid(images: Samples): Picture {
  const { height, width } = pictureSize(images);
  const enough = Math.min(128 / Math.max(height, width), GOOD_SIDE / gridSide(images));
  return makeGrid(images, Math.max(1, Math.floor(enough)));
}

/** A picture as PNG, with what made it in its text chunks. */
export async function encodePng(
  { width, height, rgba }: Picture,
  provenance: Provenance,
): Promise<Uint8Array> {
  const { Image } = await import("imagescript");
  const image = new Image(width, height);
  image.bitmap.set(rgba);
  const description = Object.entries(provenance).map(([k, v]) => `${k} ${v}`).join(", ");
  const software = `${packageName} ${version}`;
  const comment = JSON.stringify({ software, ...provenance });
  const texts = { software, description: plain(description), comment: plain(comment) };
  return withoutTime(await image.encode(3, texts));
}

/** Text chunks are Latin-1 by their standard; JSON knows these escapes. */
const plain = (text: string) =>
  text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** A PNG without its time of making, so that the same seed gives the same bytes. */
function withoutTime(png: Uint8Array): Uint8Array {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength),
    parts = [png.subarray(0, 8)];
  const decoder = new TextDecoder("latin1");
  for (let at = 8; at < png.length;) {
    const end = at + 12 + view.getUint32(at);
    const start = decoder.decode(png.subarray(at + 4, Math.min(end, at + 24)));
    if (!start.startsWith("tEXtCreation Time")) parts.push(png.subarray(at, end));
    at = end;
  }
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

/** Milliseconds of each frame; an animation stays with the last one for a while. */
const durationsOf = (frames: number): number[] =>
  Array.from(
    { length: frames },
    (_, i) => i === frames - 1 ? 2000 : Math.max(20, Math.round(3000 / frames)),
  );

/** Frames as an animated GIF. */
async function encodeGif(frames: readonly Picture[]): Promise<Uint8Array> {
  const { Frame, GIF } = await import("imagescript");
  const durations = durationsOf(frames.length);
  const made = frames.map(({ width, height, rgba }, i) => {
    const frame = new Frame(width, height, durations[i]);
    frame.bitmap.set(rgba);
    return frame;
  });
  return await new GIF(made, 0).encode(95);
}

/** Writes images in the way that an output path asks for; returns what was written, in words. */
export async function writeImages(
  path: string,
  kind: OutputKind,
  images: Samples,
  frames: readonly Samples[],
  provenance: Provenance,
): Promise<string> {
  switch (kind) {
    case "grid":
      await writeWhole(path, await encodePng(drawGrid(images), provenance));
      return path;
    case "animation": {
      const pictures = [...frames, images].map(drawGrid);
      if (extname(path).toLowerCase() === ".apng") {
        const frames = await Promise.all(pictures.map((p) => encodePng(p, provenance)));
        await writeWhole(path, animatePng(frames, durationsOf(frames.length)));
      } else await writeWhole(path, await encodeGif(pictures));
      return path;
    }
    case "tensors": {
      const { count, shape: sides } = images;
      const shape = [count, sides[sides.length - 1], ...sides.slice(0, -1)];
      const tensors = [{ name: "images", shape, values: channelsFirst(images) }];
      const texts = Object.entries(provenance).map(([k, v]) => [k, String(v)]);
      await writeWhole(
        path,
        writeSafetensors(tensors, {
          software: `${packageName} ${version}`,
          ...Object.fromEntries(texts),
        }),
      );
      return path;
    }
    case "folder": {
      await makeFolder(path);
      const digits = Math.max(4, String(images.count - 1).length);
      for (let i = 0; i < images.count; i++) {
        const png = await encodePng(makePicture(images, i), { ...provenance, image: i });
        await writeWhole(join(path, `${String(i).padStart(digits, "0")}.png`), png);
      }
      return `${path} (${images.count} files)`;
    }
  }
}

/** `[count, ..., channels]` as `[count, channels, ...]`. */
function channelsFirst({ count, shape, data }: Samples): Float32Array<ArrayBuffer> {
  const channels = shape[shape.length - 1], size = sizeOf(shape) / channels;
  return Float32Array.from({ length: count * channels * size }, (_, i) => {
    const pixel = i % size,
      c = Math.floor(i / size) % channels,
      n = Math.floor(i / size / channels);
    return data[(n * size + pixel) * channels + c];
  });
}

/**
 * A picture of a file.
 *
 * @throws {InputError} If it is none.
 */
export const readRaster = async (path: string): Promise<Raster> =>
  await decodeImage(await readFile(path), path);

/**
 * A picture as an image of a shape, in [-1, 1], brought to its size as `train` does it.
 *
 * @throws {InputError} If there are no pictures of so many channels.
 */
export function fitPicture(
  picture: Raster,
  shape: Shape,
  path: string,
): Float32Array<ArrayBuffer> {
  const { height, width, channels } = pictureSize({ shape });
  if (channels !== 1 && channels !== 3) {
    throw new InputError(`Cannot use ${path}: the model's images have ${channels} channels`);
  }
  const data = new Float32Array(height * width * channels);
  const format = { height, width, channels, background: [255, 255, 255] } as const;
  const corner = { left: 0, top: 0, isFlipped: false };
  writeImage(fit(picture, format, "center"), format, corner, data, 0);
  return data;
}

/**
 * A picture as a network sees it: in [-1, 1], with as many channels, over white if transparent.
 *
 * @throws {InputError} If it is no picture, or of another size.
 */
export async function readPicture(
  bytes: Uint8Array<ArrayBuffer>,
  path: string,
  shape: Shape,
): Promise<Samples> {
  const { height, width } = pictureSize({ shape }), picture = await decodeImage(bytes, path);
  if (picture.width !== width || picture.height !== height) {
    throw new InputError(
      `Cannot use ${path}: it has ${picture.width}x${picture.height} pixels, and the model's ` +
        `images ${width}x${height}`,
    );
  }
  return { count: 1, shape, data: fitPicture(picture, shape, path) };
}
