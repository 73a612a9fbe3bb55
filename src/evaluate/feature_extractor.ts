/**
 * What makes features of pictures.
 *
 * @module
 */

import type { Shape } from "../shape.ts";
import type { Samples } from "../sample/options.ts";

/** What is seen in pictures, in their order. */
export interface Extracted {
  /** `[count, width]`. */
  readonly features: Float32Array<ArrayBuffer>;
  /** `[count, classes]`, of extractors that classify. */
  readonly logits?: Float32Array<ArrayBuffer>;
}

/** A network that tells pictures apart by some numbers of each, its features. */
export interface FeatureExtractor extends Disposable {
  /** What it is called where results are told. */
  readonly name: string;
  /** Features of a picture. */
  readonly width: number;
  /** Logits of a picture, of extractors that classify. */
  readonly classes?: number;
  /** The only shape of pictures that it takes, `[height, width, channels]`, if there is one. */
  readonly shape?: Shape;
  /**
   * Features of pictures in [-1, 1], rounded to the 256 levels that picture files have, so that those
   * from a sampler are judged as those from files.
   *
   * @throws {InputError} If they are no pictures that it takes.
   * @throws The signal's reason, if it is aborted.
   */
  extract(pictures: Samples, signal?: AbortSignal): Promise<Extracted>;
}

/** Numbers in [-1, 1] as the nearest of the 256 levels that files of pictures have. */
export const toBytes = (values: Float32Array): Uint8ClampedArray<ArrayBuffer> =>
  // Rounding and clamping is what a clamped array does.
  Uint8ClampedArray.from(values, (x) => (x + 1) * 127.5);

/** Numbers in [-1, 1] rounded to these levels. */
export const toLevels = (values: Float32Array): Float32Array<ArrayBuffer> =>
  Float32Array.from(toBytes(values), (byte) => byte / 127.5 - 1);
