/**
 * Data sets: pictures in arrays, in files of arrays and in those of MNIST and CIFAR-10, brought to one
 * size and varied. What reads files and archives of pictures is the command line's.
 *
 * @example Digits from the files of MNIST
 * ```ts
 * import { idxDataset, readIdx } from "@x/ddpm/data";
 *
 * const file = new Uint8Array([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 255, 255, 0]);
 * const data = idxDataset("one image", await readIdx(file, "images"));
 * console.log(data.count, data.shape); // 1 [2, 2, 1]
 * ```
 *
 * @module
 */

export type { Dataset, DatasetInfo } from "./dataset.ts";
export type { Batch, Batches, BatchPlan } from "./batches.ts";
export { type ArrayLayout, arrayPictures, type Labels } from "./datasets/array.ts";
export type { Bytes } from "../formats/bytes.ts";
export { cifarPictures, type CifarVersion } from "./datasets/cifar.ts";
export { type EmojiOptions, emojiPictures } from "./datasets/emoji.ts";
export { type IdxArray, idxDataset, idxPictures, readIdx } from "./datasets/idx.ts";
export { npyPictures, npzPictures, tensorPictures } from "./datasets/array_files.ts";
export { latentDataset, type Latents, type LatentScale, latentScaling } from "./latents.ts";
export { type PictureArray, pictureDataset, type Pictures, type Preparation } from "./pictures.ts";
export type { Color, Format, Raster } from "./raster.ts";
