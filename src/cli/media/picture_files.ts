/**
 * Reading and writing image files.
 *
 * @module
 */

import { extname, join } from "@std/path";
import { InputError } from "../../errors.ts";
import { writeSafetensors } from "../../formats/safetensors.ts";
import { makeGrid, makePicture, type Picture } from "../../sample/pixels.ts";
import { nameClasses, type Provenance, textsOf } from "../../sample/provenance.ts";
import { checkWatermark, embedWatermark } from "../../sample/watermark.ts";
import { pictureSize, type Samples } from "../../sample/options.ts";
import { type Shape, sizeOf } from "../../shape.ts";
import { fit, type Raster, writeImage } from "../../data/raster.ts";
import { concat } from "../../formats/bytes.ts";
import { animatePng } from "./apng.ts";
import { writePng } from "./png_stream.ts";
import { decodeImage } from "../data/decode.ts";
import {
  checkFolder,
  checkWritable,
  kindOfOutput,
  listFolder,
  makeFolder,
  readFile,
  removeFile,
  STREAM,
  writeOutput,
  writeWhole,
} from "../terminal/files.ts";
import { software } from "../terminal/version.ts";

/** The kind of output that a path selects. */
export type OutputKind = "grid" | "animation" | "tensors" | "folder";

/** Formats by the ends of file names. */
const KINDS: Readonly<Record<string, OutputKind>> = {
  ".png": "grid",
  ".gif": "animation",
  ".apng": "animation",
  ".safetensors": "tensors",
};

/** Where images go, and in which form. */
export interface Output {
  /** A file, a folder, or {@linkcode STREAM}. */
  readonly path: string;
  readonly kind: OutputKind;
  /** How the name of such a file ends. */
  readonly extension: string;
  /** Whether it is standard output, which nothing else may be written to. */
  readonly isStream: boolean;
}

/**
 * Selects the output by the name of a path, and checks that it can be written. `-` is a PNG on
 * standard output, and `gif:-` a GIF.
 *
 * @throws {InputError} If the name ends in something unknown, or nothing can be written there.
 */
export async function checkOutput(path: string): Promise<Output> {
  const stream = path.match(/^(?:(\w+):)?-$/), isStream = stream !== null;
  const isFolder = !isStream && (/[/\\]$/.test(path) || await kindOfOutput(path) === "folder");
  const extension = isFolder
    ? ""
    : isStream
    ? `.${stream[1] ?? "png"}`
    : extname(path).toLowerCase();
  const kind = extension ? KINDS[extension] : "folder";
  if (!kind) {
    throw new InputError(
      `Cannot write ${path}: ` +
        (isStream
          ? "give - for a PNG on standard output, or gif:-, apng:- or safetensors:-"
          : "give a name that ends in .png (a grid), .gif or .apng (the denoising) or " +
            ".safetensors (raw floats), or a folder"),
    );
  }
  if (isStream && Deno.stdout.isTerminal()) {
    throw new InputError(
      `Cannot write ${path}: standard output is a terminal; redirect it to a file or a program`,
    );
  }
  if (!isStream) await (kind === "folder" ? checkFolder(path) : checkWritable(path));
  // The encoder of GIF needs permissions of its own: better asked for now than at the end.
  if (extension === ".gif") await import("imagescript");
  return { path: isStream ? STREAM : path, kind, extension, isStream };
}

/** The longest side of a grid in pixels: 268 MB. */
const MAX_SIDE = 8192;
/** Grids are not enlarged beyond this side. */
const GOOD_SIDE = 2048;
/** The most images in an animation: it holds every frame of every image. */
const MAX_ANIMATED = 64;
/** The most bytes of all images together. */
const MAX_BYTES = 2 ** 31;

/**
 * Checks that so many images fit into the output, before anything is computed.
 *
 * @throws {InputError} If they do not, or would end up among those of an earlier run.
 */
export async function checkDrawable(
  { path, kind }: Output,
  images: Omit<Samples, "data">,
  columns?: number,
): Promise<void> {
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
  if (kind === "grid" && gridSide(images, columns) > MAX_SIDE) {
    throw refuse("one .png cannot hold them; give a folder, or a name that ends in .safetensors");
  }
  if (kind !== "tensors" && channels !== 1 && channels !== 3) {
    throw new InputError(
      `Cannot draw images of ${channels} channels; give a name that ends in .safetensors`,
    );
  }
  const others = kind === "folder" ? await numberedBeyond(path, count) : undefined;
  if (others) {
    throw new InputError(
      `Cannot write ${count} images to ${path}: it holds more of an earlier run, ${others}; delete ` +
        "them, or give another folder",
    );
  }
}

/** The file name of image `i` of `count` in a folder. */
const nameOf = (i: number, count: number): string =>
  `${String(i).padStart(Math.max(4, String(count - 1).length), "0")}.png`;

/** Numbered images in a folder that writing `count` images does not replace, as text. */
async function numberedBeyond(folder: string, count: number): Promise<string | undefined> {
  const replaced = new Set(Array.from({ length: count }, (_, i) => nameOf(i, count)));
  const others = (await listFolder(folder)).filter((name) =>
    /^\d{4,}\.png$/.test(name) && !replaced.has(name)
  );
  if (others.length < 2) return others[0];
  return `${others[0]} to ${others[others.length - 1]} (${others.length} files)`;
}

/** The longer side of a grid before enlarging, approximately. */
function gridSide(
  images: Omit<Samples, "data">,
  columns = Math.ceil(Math.sqrt(images.count)),
): number {
  const { height, width } = pictureSize(images), rows = Math.ceil(images.count / columns);
  return Math.max(columns * (width + 1), rows * (height + 1)) + 1;
}

/** How many times as large pixels are in a grid: small images are enlarged. */
function gridScale(images: Omit<Samples, "data">, columns?: number): number {
  const { height, width } = pictureSize(images);
  const enough = Math.min(128 / Math.max(height, width), GOOD_SIDE / gridSide(images, columns));
  return Math.max(1, Math.floor(enough));
}

/** The images in a grid, small ones enlarged. */
export const drawGrid = (images: Samples, columns?: number): Picture =>
  makeGrid(images, gridScale(images, columns), 1, columns);

/**
 * Checks that pictures of the output can carry a watermark, before anything is computed.
 *
 * @throws {InputError} If they cannot.
 */
export function checkMarkable(
  { kind, path }: Output,
  images: Omit<Samples, "data">,
  text: string,
  columns: number = Math.ceil(Math.sqrt(images.count)),
): void {
  if (kind !== "grid" && kind !== "folder") {
    throw new InputError(
      `--watermark is for PNG files: give a name that ends in .png, or a folder, not ${path}`,
    );
  }
  const { height, width } = pictureSize(images), rows = Math.ceil(images.count / columns);
  const scale = gridScale(images, columns);
  const sides = (n: number, side: number) =>
    kind === "folder" ? side : (n * (side + 1) + 1) * scale;
  checkWatermark(text, { width: sides(columns, width), height: sides(rows, height) });
}

/**
 * Encodes a PNG, with metadata in text chunks.
 *
 * @param parameters What other programs read of it, in a chunk of this name.
 */
export async function encodePng(
  { width, height, rgba }: Picture,
  provenance: Provenance,
  parameters?: string,
): Promise<Uint8Array> {
  // Pictures are opaque everywhere.
  const rgb = new Uint8Array(3 * width * height), parts: Uint8Array<ArrayBuffer>[] = [];
  for (let i = 0; i < rgb.length; i++) rgb[i] = rgba[4 * Math.floor(i / 3) + i % 3];
  const sink = {
    write(bytes: Uint8Array) {
      parts.push(bytes.slice());
      return Promise.resolve(bytes.length);
    },
  };
  const texts = {
    ...textsOf(provenance, software),
    ...(parameters === undefined ? {} : { parameters }),
  };
  const header = { width, height, channels: 3, texts } as const;
  await writePng(sink, header, ReadableStream.from([rgb]));
  return concat(parts);
}

/** Milliseconds of each frame; the last one is shown longer. */
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

/** The layout of grids, and the class of each image. */
export interface Arrangement {
  /** Columns of grids; by default those that make them as square as can be. */
  readonly columns?: number | undefined;
  /** The name of each image's class. */
  readonly classes?: readonly string[] | undefined;
  /** What other programs are told of an image; of many in one file, of the first. */
  readonly parametersOf?: ((image: number) => string) | undefined;
  /** Images that are not to be shown: in files of many they are grey, others are not written. */
  readonly withheld?: ReadonlyMap<number, unknown> | undefined;
  /** A text that is put into pixels, and who is told of what cannot carry it. */
  readonly watermark?:
    | { readonly text: string; readonly onUnmarked: (what: string) => void }
    | undefined;
}

/** Writes images to an output; returns a description of what was written. */
export async function writeImages(
  { path, kind, extension, isStream }: Output,
  images: Samples,
  frames: readonly Samples[],
  about: Provenance,
  { columns, classes, parametersOf, withheld, watermark }: Arrangement = {},
): Promise<string> {
  const provenance = {
    ...about,
    ...(classes ? { class: nameClasses(classes) } : {}),
    ...(withheld?.size ? { withheld: [...withheld.keys()].join(",") } : {}),
  };
  const draw = (images: Samples) => drawGrid(images, columns);
  const encode = async (picture: Picture, about: Provenance, image: number, what: string) => {
    const marked = watermark && embedWatermark(picture, watermark.text);
    if (watermark && !marked) watermark.onUnmarked(what);
    // What is told of a watermark is what was read back.
    const told = marked ? { ...about, watermark: watermark!.text } : about;
    return await encodePng(marked ?? picture, told, parametersOf?.(image));
  };
  const place = isStream ? "standard output" : path;
  switch (kind) {
    case "grid":
      await writeOutput(path, await encode(draw(images), provenance, 0, "the grid"));
      return place;
    case "animation": {
      const pictures = [...frames, images].map(draw);
      if (extension === ".apng") {
        const frames = await Promise.all(
          pictures.map((p) => encodePng(p, provenance, parametersOf?.(0))),
        );
        await writeOutput(path, animatePng(frames, durationsOf(frames.length)));
      } else await writeOutput(path, await encodeGif(pictures));
      return place;
    }
    case "tensors": {
      const { count, shape: sides } = images;
      const shape = [count, sides[sides.length - 1], ...sides.slice(0, -1)];
      const tensors = [{ name: "images", shape, values: channelsFirst(images) }];
      const texts = Object.entries(provenance).map(([k, v]) => [k, String(v)]);
      await writeOutput(
        path,
        writeSafetensors(tensors, {
          software,
          ...Object.fromEntries(texts),
        }),
      );
      return place;
    }
    case "folder": {
      await makeFolder(path);
      for (let i = 0; i < images.count; i++) {
        const name = join(path, nameOf(i, images.count));
        if (withheld?.has(i)) {
          // One of an earlier run would be taken for it.
          await removeFile(name);
          continue;
        }
        const own = { ...{ ...about, image: i }, ...(classes ? { class: classes[i] } : {}) };
        const png = await encode(makePicture(images, i), own, i, `image ${i}`);
        await writeWhole(name, png);
      }
      // After an interruption there are fewer than was checked.
      const others = await numberedBeyond(path, images.count);
      return `${path} (${images.count - (withheld?.size ?? 0)} files${
        others ? `, beside ${others} of an earlier run` : ""
      })`;
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
 * Decodes an image for a network: in [-1, 1], with its number of channels, white behind transparency.
 *
 * @throws {InputError} If it is not an image, or of another size.
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
