/**
 * Pictures to look at, batch by batch: of a data set, or as a sampler makes them.
 *
 * @module
 */

import { openBatches } from "../../data/batches.ts";
import type { Dataset } from "../../data/dataset.ts";
import type { Work } from "../../evaluate/rows.ts";
import { type Shape, sizeOf } from "../../shape.ts";
import type { Samples } from "../../sample/options.ts";

/** Pictures in a row. */
export interface ImageSource {
  /** What they are, in words. */
  readonly name: string;
  /** How many. */
  readonly count: number;
  /** Of each. */
  readonly shape: Shape;
  /** The class of each, as it was asked for, if it was. */
  readonly labels?: ArrayLike<number>;
  /** All of them, one batch after the other. */
  batches(work: Work): AsyncIterable<Samples>;
  /** Some of them, by their places. */
  pick(places: readonly number[]): Promise<Samples>;
}

/** Pictures of a data set that are read together. */
const BATCH = 64;

/**
 * Pictures of a data set.
 *
 * @param at Which picture is at each of so many places.
 */
export function imagesOf(
  data: Dataset,
  count: number = data.count,
  at: (place: number) => number = (place) => place,
): ImageSource {
  const { name, shape, labels } = data, each = sizeOf(shape);
  return {
    ...{ name, count, shape },
    ...(labels ? { labels: Int32Array.from({ length: count }, (_, i) => labels[at(i)]) } : {}),
    async *batches({ signal, onProgress }) {
      const size = Math.min(BATCH, count);
      using batches = openBatches(data, {
        ...{ size, seed: 0, imageAt: (place) => at(place % count) },
      });
      for (let first = 0; first < count; first += size) {
        signal?.throwIfAborted();
        onProgress?.(first, count);
        const n = Math.min(size, count - first), { images } = await batches.at(first);
        yield { count: n, shape, data: images.slice(0, n * each) };
      }
    },
    async pick(places) {
      const found = new Float32Array(places.length * each);
      for (const [i, place] of places.entries()) await data.read(at(place), found, i * each);
      return { count: places.length, shape, data: found };
    },
  };
}

/** Whether pictures of a shape are made smaller by whole factors, each of the same side. */
export const isReducible = ([h, w, c]: Shape, [height, width, channels]: Shape): boolean =>
  c === channels && h % height === 0 && h / height === w / width;

/** Pictures made smaller, of which each pixel is the mean of a square; see {@linkcode isReducible}. */
export function reduceSource(source: ImageSource, shape: Shape): ImageSource {
  const [height, width, channels] = shape, each = sizeOf(shape), side = source.shape[0] / height;
  const reduce = ({ count, data }: Samples): Samples => {
    const means = new Float32Array(count * each);
    for (let line = 0; line < count * height * side; line++) {
      for (let x = 0; x < width * side; x++) {
        const to = (Math.floor(line / side) * width + Math.floor(x / side)) * channels;
        const from = (line * width * side + x) * channels;
        for (let c = 0; c < channels; c++) means[to + c] += data[from + c] / side ** 2;
      }
    }
    return { count, shape, data: means };
  };
  return {
    ...{ ...source, shape },
    async *batches(work) {
      for await (const batch of source.batches(work)) yield reduce(batch);
    },
    pick: async (places) => reduce(await source.pick(places)),
  };
}

/** The pictures of several sources of one shape, one source after the other. */
export function joinSources(sources: readonly ImageSource[]): ImageSource {
  if (sources.length === 1) return sources[0];
  const [{ shape }] = sources, count = sources.reduce((sum, source) => sum + source.count, 0);
  const labels = sources.flatMap((source) => source.labels ? [...Array.from(source.labels)] : []);
  return {
    ...{ name: sources.map(({ name }) => name).join(", "), count, shape },
    ...(labels.length === count ? { labels } : {}),
    async *batches(work) {
      for (const source of sources) yield* source.batches(work);
    },
    async pick(places) {
      const each = sizeOf(shape), data = new Float32Array(places.length * each);
      for (const [i, place] of places.entries()) {
        let at = place, k = 0;
        while (at >= sources[k].count) at -= sources[k++].count;
        data.set((await sources[k].pick([at])).data, i * each);
      }
      return { count: places.length, shape, data };
    },
  };
}
