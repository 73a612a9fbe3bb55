/**
 * Sets of pictures as data sets: brought to one size, and varied from epoch to epoch.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { philox, seedWords, toInteger } from "../gpu/philox.ts";
import type { Batch, Batches, BatchPlan } from "./batches.ts";
import type { Dataset, DatasetInfo } from "./dataset.ts";
import type { ArrayLayout } from "./datasets/array.ts";
import { fit, type Format, type Placement, type Raster, writeImage } from "./raster.ts";

/** Pictures by number, each in a size of its own. */
export interface Pictures extends DatasetInfo {
  /** Where pictures are of one size and in memory: all of them, for other threads to read. */
  readonly array?: PictureArray;
  /**
   * A picture.
   *
   * @throws {InputError} If it is damaged.
   */
  picture(index: number): Raster | Promise<Raster>;
}

/** Pictures of one size in memory. */
export interface PictureArray {
  /** How they lie in the bytes. */
  readonly layout: ArrayLayout;
  /** The bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** What becomes of pictures. */
export interface Preparation extends Format {
  /** Where pictures are cut that are not as wide or high as the images. */
  readonly crop: "center" | "random";
  /** Whether every other image, by chance, is seen as in a mirror. */
  readonly flip: boolean;
  /** Pixels by which images are moved at most, in each direction; edges are repeated. */
  readonly shift: number;
}

/** Keeps variations apart from everything else that is drawn from a seed. */
const VARIATION_STREAM = 0x0bd4;

/** How the image at a place of a training's sequence is varied: a pure function of seed and place. */
export function placementAt(
  { width, height }: Raster,
  preparation: Preparation,
  seed: number,
  place: number,
): Placement {
  const { crop, flip, shift } = preparation, words = new Uint32Array(4);
  const [low, high] = seedWords(seed), [placeLow, placeHigh] = seedWords(place);
  philox([0, placeLow, placeHigh, VARIATION_STREAM], [low, high], words);
  const spare = [width - preparation.width, height - preparation.height];
  const [left, top] = spare.map((room, axis) => {
    // A picture is too long in one direction only, so that one word is enough for both.
    const start = crop === "random" ? toInteger(words[3], room + 1) : room >> 1;
    return start + toInteger(words[1 + axis], 2 * shift + 1) - shift;
  });
  return { left, top, isFlipped: flip && (words[0] & 1) === 1 };
}

/** The picture in the middle, as it is. */
export function centered({ width, height }: Raster, format: Format): Placement {
  return {
    left: (width - format.width) >> 1,
    top: (height - format.height) >> 1,
    isFlipped: false,
  };
}

/**
 * A set of pictures as a data set that reads and varies them when it is asked for a batch.
 *
 * @throws {InputError} If there are no pictures.
 *
 * @example
 * ```ts
 * import { arrayPictures, pictureDataset } from "@x/ddpm/data";
 *
 * const layout = { count: 2, height: 4, width: 4, channels: 1 };
 * const pictures = arrayPictures("ramps", layout, Uint8Array.from({ length: 32 }, (_, i) => 8 * i));
 * const data = pictureDataset(pictures, { height: 2, width: 2, channels: 1, background: [0, 0, 0],
 *   crop: "center", flip: true, shift: 0 });
 * console.log(data.count, data.shape);
 * ```
 */
export function pictureDataset(pictures: Pictures, preparation: Preparation): Dataset {
  if (!pictures.count) throw new InputError(`Cannot use ${pictures.name}: it has no pictures`);
  return {
    ...describe(pictures, preparation),
    read: (index, out, offset) =>
      when(pictures.picture(index), (raster) => {
        const fitted = fit(raster, preparation, preparation.crop);
        writeImage(fitted, preparation, centered(fitted, preparation), out, offset);
      }),
    batches: (plan) => new PictureBatches(pictures, preparation, plan),
  };
}

/** What a data set says of itself. */
export function describe(
  { name, count, labels, classes, labelProblem, names, captions }: DatasetInfo,
  { height, width, channels }: Format,
): Omit<Dataset, "read"> {
  return {
    ...{ name, count, shape: [height, width, channels] },
    ...(labels ? { labels } : {}),
    ...(classes ? { classes } : {}),
    ...(labelProblem ? { labelProblem } : {}),
    ...(names ? { names } : {}),
    ...(captions ? { captions } : {}),
  };
}

/** Goes on with a value now, or with a promised one later. */
function when<T>(value: T | Promise<T>, go: (value: T) => void): void | Promise<void> {
  return value instanceof Promise ? value.then(go) : go(value);
}

class PictureBatches implements Batches {
  readonly #pictures: Pictures;
  readonly #preparation: Preparation;
  readonly #plan: BatchPlan;
  readonly #batch: Batch;

  constructor(pictures: Pictures, preparation: Preparation, plan: BatchPlan) {
    this.#pictures = pictures;
    this.#preparation = preparation;
    this.#plan = plan;
    this.#batch = makeBatch(preparation, plan.size);
  }

  async at(place: number): Promise<Batch> {
    const { size, seed } = this.#plan, { images, labels, indices } = this.#batch;
    const preparation = this.#preparation, each = images.length / size;
    for (let i = 0; i < size; i++) {
      const index = this.#plan.imageAt(place + i);
      const picture = this.#pictures.picture(index);
      const fitted = fit(
        picture instanceof Promise ? await picture : picture,
        preparation,
        preparation.crop,
      );
      const placement = placementAt(fitted, preparation, seed, place + i);
      writeImage(fitted, preparation, placement, images, i * each);
      labels[i] = this.#pictures.labels?.[index] ?? 0;
      indices[i] = index;
    }
    return this.#batch;
  }

  [Symbol.dispose](): void {}
}

/** Room for a batch. */
export function makeBatch({ height, width, channels }: Format, size: number): Batch {
  return {
    images: new Float32Array(size * height * width * channels),
    labels: new Int32Array(size),
    indices: new Uint32Array(size),
  };
}
