/**
 * What a picture says of how it was made, for `ddpm info`.
 *
 * @module
 */

import { IMAGE_NAME, readImageHeader } from "../../data/datasets/image.ts";
import { convert } from "../../data/raster.ts";
import { readWatermark } from "../../sample/watermark.ts";
import { decodeImage } from "../data/decode.ts";
import { parseParameters } from "../media/parameters.ts";
import { readTexts } from "../../formats/png_texts.ts";
import { sourceTypeIn, XMP } from "../../formats/xmp.ts";
import { kindOf, readFile } from "../terminal/files.ts";
import type { Facts } from "./model_facts.ts";

/** Whether a path is that of a picture. */
export const isPicture = async (path: string): Promise<boolean> =>
  (IMAGE_NAME.test(path) || /\.apng$/i.test(path)) && await kindOf(path) === "file";

/**
 * Describes a picture: what its texts and its pixels say.
 *
 * @throws {InputError} If it is damaged.
 */
export async function describePicture(path: string): Promise<Facts> {
  const bytes = await readFile(path), { kind, width, height } = readImageHeader(bytes, path);
  const { Comment: comment, parameters, [XMP]: xmp } = kind === "png" ? await readTexts(bytes) : {};
  const raster = convert(await decodeImage(bytes, path), 3, [255, 255, 255]);
  const rgba = new Uint8ClampedArray(4 * width * height);
  const { data } = raster, source = xmp && sourceTypeIn(xmp);
  for (let i = 0; i < rgba.length; i++) rgba[i] = i % 4 < 3 ? data[3 * (i >> 2) + i % 4] : 255;
  return {
    picture: `${kind.toUpperCase()}, ${width}x${height}`,
    provenance: comment ? readJson(comment) : "none",
    ...(parameters ? { parameters: parseParameters(parameters) } : {}),
    "digital source type": source ?? "not told",
    watermark: readWatermark({ width: raster.width, height: raster.height, rgba }) ?? "none",
  };
}

/** JSON, or the text where it is none, as other programs write comments. */
function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
