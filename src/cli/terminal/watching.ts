/**
 * What is shown and kept of latents while they come about: a preview, and frames of an animation.
 *
 * @module
 */

import { pictureSize, type Samples } from "../../sample/options.ts";
import type { GenerationPreview } from "../../sample/text_to_image_options.ts";
import type { OutputKind } from "../media/picture_files.ts";
import { Preview, protocolOf } from "../media/preview.ts";
import { environment } from "./environment.ts";
import type { Progress } from "./progress.ts";
import { writeTerminal } from "./progress.ts";
import { join } from "./sampling_run.ts";

/** What is shown and kept while images come about. */
export class Watching {
  readonly #preview: Preview | undefined;
  readonly #isAnimated: boolean;
  readonly #progress: Progress;
  readonly #frames = new Map<number, Samples[]>();

  constructor(kind: OutputKind, hasPreview: boolean, progress: Progress) {
    this.#isAnimated = kind === "animation";
    this.#progress = progress;
    this.#preview = hasPreview
      ? new Preview(protocolOf(environment), Deno.consoleSize().columns, writeTerminal)
      : undefined;
  }

  /** Whether there is anybody to show it to. */
  get isNeeded(): boolean {
    return this.#isAnimated || this.#preview !== undefined;
  }

  /** Takes what comes. */
  async show({ step, steps, ...preview }: GenerationPreview): Promise<void> {
    const pictures = await preview.pictures();
    if (this.#isAnimated && step < steps) {
      this.#frames.set(step, [...this.#frames.get(step) ?? [], pictures]);
    }
    if (!this.#preview) return;
    this.#progress.clear();
    this.#preview.draw(pictures);
  }

  /** Frames before the images, in their size; those in which some are missing are left out. */
  framesOf(images: Samples): Samples[] {
    return [...this.#frames.values()].map(join).filter(({ count }) => count === images.count)
      .map((frame) => enlarge(frame, images));
  }
}

/** Pictures in the size of others, of squares. */
function enlarge(pictures: Samples, { shape }: Samples): Samples {
  const small = pictureSize(pictures), { height, width, channels } = pictureSize({ shape });
  const data = Float32Array.from({ length: pictures.count * height * width * channels }, (_, i) => {
    const pixel = Math.floor(i / channels), row = Math.floor(pixel / width) % height;
    const image = Math.floor(pixel / width / height);
    const [y, x] = [
      Math.floor(row * small.height / height),
      Math.floor(pixel % width * small.width / width),
    ];
    return pictures.data[((image * small.height + y) * small.width + x) * channels + i % channels];
  });
  return { count: pictures.count, shape, data };
}
