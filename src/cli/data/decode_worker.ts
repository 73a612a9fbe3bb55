/**
 * A worker that reads, decodes and augments images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { placementAt, type Preparation } from "../../data/pictures.ts";
import { fit, type Raster, writeImage } from "../../data/raster.ts";
import { type ImageFile, ImageReader, type Place } from "./image_files.ts";
import { PixelCache, type SharedCache } from "./pixel_cache.ts";

/** The first message to a worker. */
export interface DecoderSetup {
  readonly place: Place;
  readonly preparation: Preparation;
  readonly seed: number;
  readonly cache?: SharedCache;
}

/** A requested image. */
export interface Wanted {
  /** Its index in the set, and its file. */
  readonly index: number;
  readonly file: ImageFile;
  /** Its position in the training's sequence. */
  readonly place: number;
}

/** A batch of requested images. */
export interface DecodeJob {
  readonly id: number;
  readonly wanted: readonly Wanted[];
}

/** The result of a job. */
export interface DecodeResult {
  readonly id: number;
  /** The images in the order of the job; zeros for those that cannot be read. */
  readonly images: Float32Array<ArrayBuffer>;
  /** Which of them cannot be read, and why. */
  readonly bad: readonly { readonly at: number; readonly why: string }[];
}

/** What a worker's global scope has; the type checker is told of windows only. */
const scope = globalThis as unknown as {
  postMessage(message: DecodeResult, transfer: Transferable[]): void;
};

/** Reads and decodes images. */
class Decoder {
  readonly #setup: DecoderSetup;
  readonly #reader: ImageReader;
  readonly #cache: PixelCache | undefined;

  constructor(setup: DecoderSetup) {
    this.#setup = setup;
    this.#reader = new ImageReader(setup.place);
    if (setup.cache) this.#cache = new PixelCache(setup.cache, setup.preparation.channels);
  }

  async decode({ id, wanted }: DecodeJob): Promise<DecodeResult> {
    const { preparation, seed } = this.#setup, { height, width, channels } = preparation;
    const each = height * width * channels, images = new Float32Array(wanted.length * each);
    const bad: { at: number; why: string }[] = [];
    for (const [at, { index, file, place }] of wanted.entries()) {
      try {
        const picture = await this.#picture(index, file);
        const placement = placementAt(picture, preparation, seed, place);
        writeImage(picture, preparation, placement, images, at * each);
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        bad.push({ at, why: error.message });
      }
    }
    return { id, images, bad };
  }

  async #picture(index: number, file: ImageFile): Promise<Raster> {
    const kept = this.#cache?.get(index);
    if (kept) return kept;
    const { preparation } = this.#setup;
    const fitted = fit(await this.#reader.picture(index, file), preparation, preparation.crop);
    this.#cache?.set(index, fitted);
    return fitted;
  }
}

let decoder: Decoder | undefined, last = Promise.resolve();

/** The first message is the setup, all others are jobs, done one after the other. */
addEventListener("message", (event) => {
  const message = (event as MessageEvent<DecoderSetup | DecodeJob>).data;
  if (!("wanted" in message)) {
    decoder = new Decoder(message);
    return;
  }
  last = last.then(async () => {
    const result = await decoder!.decode(message);
    scope.postMessage(result, [result.images.buffer]);
  });
});
