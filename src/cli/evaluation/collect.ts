/**
 * Features of many pictures, of which only what a measure needs is kept.
 *
 * @module
 */

import { type FeatureExtractor, toLevels } from "../../evaluate/feature_extractor.ts";
import { Moments } from "../../evaluate/moments.ts";
import type { Rows, Work } from "../../evaluate/rows.ts";
import type { Statistics } from "../../evaluate/statistics_file.ts";
import { sizeOf } from "../../shape.ts";
import type { Samples } from "../../sample/options.ts";
import type { ImageSource } from "./image_source.ts";

/** What is kept of each picture. */
export interface Kept {
  readonly features: boolean;
  readonly logits: boolean;
  readonly pixels: boolean;
}

/** What is known of pictures that were looked at. */
export interface Collected {
  readonly statistics: Statistics;
  /** Their pixels, where those are compared. */
  readonly pixels?: Rows;
  /** The first of them, to show. */
  readonly shown: Samples;
}

/** Pictures that a report shows. */
export const SHOWN = 100;

/**
 * Looks at all pictures of a source.
 *
 * @param onBatch Is given the features and the pixels of each batch.
 * @throws The signal's reason, if it is aborted.
 */
export async function collect(
  source: ImageSource,
  extractor: FeatureExtractor,
  kept: Kept,
  work: Work,
  onBatch: (features: Rows, pixels: Rows) => void | Promise<void> = () => {},
): Promise<Collected> {
  const { count, shape } = source, { width, classes = 0 } = extractor, each = sizeOf(shape);
  const moments = new Moments(width), most = Math.min(SHOWN, count);
  const room = (isKept: boolean, width: number) =>
    isKept ? { count, width, data: new Float32Array(count * width) } : undefined;
  const features = room(kept.features, width), logits = room(kept.logits, classes);
  const pixels = room(kept.pixels, each), shown = new Float32Array(most * each);
  let at = 0;
  for await (const images of source.batches(work)) {
    const seen = await extractor.extract(images, work.signal);
    const own = { count: images.count, width, data: seen.features };
    const levels = { count: images.count, width: each, data: toLevels(images.data) };
    moments.add(own);
    features?.data.set(own.data, at * width);
    if (seen.logits) logits?.data.set(seen.logits, at * classes);
    pixels?.data.set(levels.data, at * each);
    if (at < most) shown.set(images.data.subarray(0, (most - at) * each), at * each);
    await onBatch(own, levels);
    at += images.count;
  }
  return {
    statistics: {
      ...{ gaussian: moments.gaussian(), count },
      ...(features ? { features } : {}),
      ...(logits ? { logits } : {}),
      ...(source.labels ? { labels: Int32Array.from(source.labels) } : {}),
    },
    ...(pixels ? { pixels } : {}),
    shown: { count: most, shape, data: shown },
  };
}
