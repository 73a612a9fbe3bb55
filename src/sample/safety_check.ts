/**
 * Whether pictures may be shown, as the safety checker of a pipeline sees them.
 *
 * The verdicts are those of diffusers' `StableDiffusionSafetyChecker`: scores are rounded to
 * thousandths, so that half a thousandth above a threshold passes; where a concept of special care
 * scores above 0, all others score 0.01 more; and a concept of special care alone withholds nothing.
 * What comes of them differs: there, a picture that is withheld becomes black, and one whose scores
 * are no numbers passes.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { MemoryPlan } from "../gpu/describe.ts";
import type { Device } from "../gpu/device.ts";
import { isAllFinite } from "../formats/elements.ts";
import { input } from "../gpu/tensor.ts";
import { convert, cubic, type Raster, resize } from "../data/raster.ts";
import type { ClipImageProcessor } from "../model/clip_image_processor.ts";
import { itemOf, type SafetyCheckerNetwork } from "../model/network.ts";
import type { WeightDType } from "../model/parameters.ts";
import type { SafetyChecker } from "../model/text_to_image.ts";
import type { LatentOptions } from "./autoencoder.ts";
import { type NetworkTask, planNetwork, withNetwork } from "./network_program.ts";
import type { Samples } from "./options.ts";
import { makePicture } from "./pixels.ts";

/** What a safety checker says of a picture. */
export interface SafetyVerdict {
  /** Whether the picture is not to be shown. */
  readonly isWithheld: boolean;
  /** The concepts that it shows, by their numbers in the checker, from 0. */
  readonly concepts: readonly number[];
  /** Those of special care, which make it stricter about the others. */
  readonly special: readonly number[];
}

/** How much stricter. */
const STRICTER = 0.01;

/** Whether a score is above 0 once it is rounded to thousandths, as by Python: half goes to even. */
const isAbove = (score: number) => score * 1000 > 0.5;

/**
 * The verdict of scores, which are cosines minus thresholds.
 *
 * @throws {Error} If they are no numbers.
 */
export function judge(concepts: ArrayLike<number>, special: ArrayLike<number>): SafetyVerdict {
  const all = [concepts, special].map((scores) => Array.from(scores));
  if (!all.every((scores) => isAllFinite(scores))) {
    throw new Error("The safety checker gave numbers that are not finite");
  }
  const above = (scores: readonly number[], more: number) =>
    scores.flatMap((score, i) => isAbove(score + more) ? [i] : []);
  const care = above(all[1], 0), found = above(all[0], care.length ? STRICTER : 0);
  return { isWithheld: found.length > 0, concepts: found, special: care };
}

/**
 * A picture as CLIP's image processor makes it, `[crop, crop, 3]`: the shorter side is brought to
 * `size`, bicubically as Pillow does it, and the middle is cut out.
 */
export function prepareForClip(
  picture: Raster,
  { size, crop, mean, std }: ClipImageProcessor,
): Float32Array<ArrayBuffer> {
  const raster = convert(picture, 3, [255, 255, 255]), { width, height } = raster;
  const short = Math.min(width, height), whole = { left: 0, top: 0 };
  const [w, h] = [width, height].map((side) => Math.floor(size * side / short));
  // One axis after the other, since Pillow rounds in between.
  const wide = resize(raster, w, height, { ...whole, width, height }, cubic);
  const { data } = resize(wide, w, h, { ...whole, width: w, height }, cubic);
  const left = Math.floor((w - crop) / 2), top = Math.floor((h - crop) / 2);
  return Float32Array.from({ length: crop * crop * 3 }, (_, i) => {
    const c = i % 3, x = Math.floor(i / 3) % crop, y = Math.floor(i / 3 / crop);
    return (data[3 * ((top + y) * w + left + x) + c] / 255 - mean[c]) / std[c];
  });
}

/** One picture at a time: the checker is large, and pictures are few. */
function checking(network: SafetyCheckerNetwork): NetworkTask {
  const picture = input("picture", [1, ...itemOf(network)]);
  return {
    input: picture,
    compute(parameter) {
      const { concepts, special } = network.forward({ parameter }, picture);
      return { concepts, special };
    },
  };
}

/** The memory that checking takes, weights included. */
export const planCheck = (
  device: Device,
  { network }: SafetyChecker,
  weightDType?: WeightDType,
): MemoryPlan => planNetwork(device, network.layout, checking(network), weightDType);

/**
 * Checks pictures in [-1, 1], rounded to the 256 levels of files, with a checker that is compiled for
 * that and gives its memory back.
 *
 * @returns A verdict of each; of fewer if the signal stops it.
 * @throws {LimitError} If it does not fit the device.
 * @throws {DeviceError} If the device fails.
 * @throws {Error} If the checker gives numbers that are not finite.
 */
export function checkPictures(
  device: Device,
  checker: SafetyChecker,
  pictures: Samples,
  { weightDType, signal, onProgress }: LatentOptions & {
    readonly weightDType?: WeightDType | undefined;
  } = {},
): Promise<SafetyVerdict[]> {
  const settings = { label: "to check pictures", weightDType }, task = checking(checker.network);
  return withNetwork(device, checker, task, settings, async (program) => {
    const verdicts: SafetyVerdict[] = [], { picture, concepts, special } = program.buffers;
    for (let i = 0; i < pictures.count && !signal?.aborted; i++) {
      const { width, height, rgba } = makePicture(pictures, i);
      const raster = { width, height, channels: 4, data: new Uint8Array(rgba.buffer) };
      picture.write(prepareForClip(raster, checker.processor));
      program.run();
      verdicts.push(judge(await concepts.read(), await special.read()));
      onProgress?.(verdicts.length, pictures.count);
    }
    return verdicts;
  });
}

/**
 * The checker, whose network and processor must make pictures of one size.
 *
 * @throws {InputError} If they do not.
 */
export function checkChecker({ network, processor }: SafetyChecker): void {
  const [side] = itemOf(network);
  if (side === processor.crop) return;
  throw new InputError(
    `The pieces of the model do not go together: the safety checker sees pictures of ${side}x${side}, ` +
      `but its image processor makes them ${processor.crop}x${processor.crop}`,
  );
}
