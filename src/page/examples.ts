/**
 * Pictures to learn from: files, and drawings.
 *
 * @module
 */

import { numberClasses } from "../data/datasets/folders.ts";
import { InputError } from "../errors.ts";
import type { WorkerPictures } from "../worker/protocol.ts";
import { drawSamples } from "./pictures.ts";
import { tellPictures } from "./status.ts";

/** Pictures that are taken, and those that are shown. */
const MOST = 5000, SHOWN = 60;
/** Larger pictures than so many times the size are reduced by the decoder, beside the page's thread. */
const REACH = 4;
/** Pictures after which the page has its turn. */
const PAUSE = 128;

/** A picture to be added. */
export interface ExampleSource {
  readonly source: Blob | ImageBitmap;
  /** The class that it is of, if any. */
  readonly of?: string | undefined;
}

/** A picture in the size that is learnt. */
interface Example {
  /** What it was made of, in full. */
  readonly source: Blob | ImageBitmap | undefined;
  /** The class that it is of, if any. */
  readonly of: string | undefined;
  /** Pixels of 1 or 3 channels. */
  readonly pixels: Uint8Array<ArrayBuffer>;
}

/** Pictures of one size. */
export class Examples {
  readonly #canvas: HTMLCanvasElement;
  readonly #small = document.createElement("canvas");
  readonly #context = this.#small.getContext("2d", { willReadFrequently: true })!;
  #all: Example[] = [];
  #side: number;

  constructor(canvas: HTMLCanvasElement, side: number) {
    this.#canvas = canvas;
    this.#side = side;
  }

  get count(): number {
    return this.#all.length;
  }

  get side(): number {
    return this.#side;
  }

  /** Its classes, if there are several and all pictures are of one, and the number of each picture's. */
  get labels(): Pick<WorkerPictures, "classes" | "labels"> {
    const names = this.#all.map(({ of }) => of);
    if (names.includes(undefined) || new Set(names).size < 2) return {};
    return numberClasses(names as string[]);
  }

  /** How many pictures are of a class. */
  get ofClasses(): number {
    return this.#all.filter(({ of }) => of !== undefined).length;
  }

  /**
   * Adds pictures; those that cannot be read are left out.
   *
   * @returns What the ones left out are called.
   * @throws {InputError} If there are too many.
   */
  async add(
    sources: readonly ExampleSource[],
    onProgress?: (done: number) => void,
  ): Promise<string[]> {
    if (this.count + sources.length > MOST) {
      throw new InputError(
        `Cannot take ${sources.length} pictures: a training in a tab has at most ${MOST}`,
      );
    }
    const bad: string[] = [];
    for (const [i, { source, of }] of sources.entries()) {
      try {
        this.#all.push({ source, of, pixels: await this.#decode(source) });
      } catch {
        bad.push(source instanceof File ? source.name : "a picture");
      }
      if (i % PAUSE === PAUSE - 1) onProgress?.(i + 1);
    }
    this.#show();
    return bad;
  }

  /** Shows the pictures of a training instead. */
  load({ count, height, channels, data, labels, classes }: WorkerPictures): void {
    const size = height * height * channels;
    this.#side = height;
    this.#all = Array.from({ length: count }, (_, i) => ({
      ...{ source: undefined, pixels: data.subarray(i * size, (i + 1) * size) },
      of: labels && (classes?.[labels[i]] ?? String(labels[i])),
    }));
    this.#show();
  }

  /** Brings all pictures to another size. */
  async resize(side: number): Promise<void> {
    const before = this.#all, old = this.#side;
    this.#side = side;
    this.#all = [];
    for (const { source, of, pixels } of before) {
      const whole = source ?? await createImageBitmap(imageOf(pixels, old));
      this.#all.push({ source: whole, of, pixels: await this.#decode(whole) });
    }
    this.#show();
  }

  clear(): void {
    this.#all = [];
    this.#show();
  }

  /** All pictures, grey if none has a color. */
  async pictures(): Promise<WorkerPictures> {
    const area = this.#side ** 2, isGrey = this.#all.every(({ pixels }) => pixels.length === area);
    const channels = isGrey ? 1 : 3, size = area * channels, { count } = this;
    const data = new Uint8Array(count * size);
    for (const [i, { pixels }] of this.#all.entries()) {
      if (pixels.length === size) data.set(pixels, i * size);
      else for (let k = 0; k < size; k++) data[i * size + k] = pixels[Math.floor(k / 3)];
      if (i % PAUSE === PAUSE - 1) await pause();
    }
    const name = `${tellPictures(count)} of a page`;
    return { name, count, height: this.#side, width: this.#side, channels, data, ...this.labels };
  }

  /** The middle of a picture, over white. */
  async #decode(source: Blob | ImageBitmap): Promise<Uint8Array<ArrayBuffer>> {
    const side = this.#side;
    const whole = source instanceof Blob ? await decodeFile(source, REACH * side) : source;
    const { width, height } = whole, least = Math.min(width, height), context = this.#context;
    if (this.#small.width !== side) Object.assign(this.#small, { width: side, height: side });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, side, side);
    context.imageSmoothingQuality = "high";
    const [left, top] = [(width - least) / 2, (height - least) / 2];
    context.drawImage(whole, left, top, least, least, 0, 0, side, side);
    if (whole !== source) whole.close();
    const { data: rgba } = context.getImageData(0, 0, side, side);
    const isGrey = rgba.every((value, i) => i % 4 === 3 || value === rgba[i - i % 4]);
    const pixels = new Uint8Array(side * side * (isGrey ? 1 : 3));
    for (let i = 0, to = 0; i < rgba.length; i += 4) {
      for (let c = 0; c < (isGrey ? 1 : 3); c++) pixels[to++] = rgba[i + c];
    }
    return pixels;
  }

  #show(): void {
    const shown = this.#all.slice(0, SHOWN), side = this.#side, size = side * side * 3;
    const data = new Float32Array(shown.length * size);
    for (const [i, { pixels }] of shown.entries()) {
      const each = size / pixels.length;
      for (let k = 0; k < size; k++) data[i * size + k] = pixels[Math.floor(k / each)] / 127.5 - 1;
    }
    this.#canvas.hidden = !shown.length;
    this.#canvas.setAttribute("aria-label", `${tellPictures(this.count)} to learn from`);
    if (!shown.length) return;
    const samples = { count: shown.length, shape: [side, side, 3], data };
    drawSamples(this.#canvas, samples, Math.min(shown.length, 20));
  }
}

/** A file's picture, its shorter side at most about so long. */
async function decodeFile(file: Blob, most: number): Promise<ImageBitmap> {
  const whole = await createImageBitmap(file), { width, height } = whole;
  if (Math.min(width, height) <= most) return whole;
  whole.close();
  const side = width < height ? { resizeWidth: most } : { resizeHeight: most };
  return await createImageBitmap(file, { ...side, resizeQuality: "high" });
}

/** Pixels as a canvas has them. */
function imageOf(pixels: Uint8Array<ArrayBuffer>, side: number): ImageData {
  const image = new ImageData(side, side), channels = pixels.length / side ** 2;
  for (let i = 0; i < side * side; i++) {
    for (let c = 0; c < 4; c++) {
      image.data[4 * i + c] = c < 3 ? pixels[i * channels + c % channels] : 255;
    }
  }
  return image;
}

const pause = () => new Promise((resolve) => setTimeout(resolve));
