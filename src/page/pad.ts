/**
 * A canvas to draw on: strokes of a picture, and of the mask of what is to be painted anew.
 *
 * @module
 */

import type { Samples } from "../sample/options.ts";
import { drawSamples, readCanvas } from "./pictures.ts";

/** What strokes do. */
export type Tool = "draw" | "erase" | "mask";

/** Pixels of its side; images are scaled to it. */
const SIDE = 280;
/** Colors as an input of colors says them. */
const WHITE = "#ffffff", BLACK = "#000000";
/** How far an arrow key moves the brush. */
const STRIDE = 10;

/** A picture that is drawn, under a mask. */
export class Pad {
  tool: Tool = "draw";
  /** Diameter of the brush, in pixels of the pad. */
  brush = 24;
  /** The color of strokes. */
  color = WHITE;
  /** That of an empty pad, and of what is erased. */
  #background = BLACK;
  readonly #canvas: HTMLCanvasElement;
  readonly #picture = makeLayer();
  readonly #mask = makeLayer();
  readonly #onChange: () => void;
  #isMasked = false;
  #isEmpty = true;
  /** The brush, for those who move it by keys. */
  #place = [SIDE / 2, SIDE / 2];

  constructor(canvas: HTMLCanvasElement, onChange: () => void) {
    this.#canvas = Object.assign(canvas, { width: SIDE, height: SIDE });
    this.#onChange = onChange;
    this.clear();
    let last: number[] | undefined;
    const placeOf = ({ clientX, clientY }: PointerEvent) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [(clientX - left) / width * SIDE, (clientY - top) / height * SIDE];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#stroke(last = placeOf(event), last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const from = last;
      this.#stroke(from, last = placeOf(event));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => last = undefined);
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, () => this.#show());
  }

  /** Nothing is drawn. */
  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  /** Suits pictures of so many channels: those in color lie on white, mostly. */
  suit(channels: number): void {
    const [background, ink] = channels === 3 ? [WHITE, BLACK] : [BLACK, WHITE];
    if (background === this.#background) return;
    this.#background = background;
    if (this.color === background) this.color = ink;
    if (this.#isEmpty) this.clear();
  }

  /** Begins with nothing. */
  clear(): void {
    const picture = this.#picture.getContext("2d")!;
    picture.fillStyle = this.#background;
    picture.fillRect(0, 0, SIDE, SIDE);
    this.#isEmpty = true;
    this.clearMask();
  }

  /** Nothing is masked. */
  clearMask(): void {
    this.#mask.getContext("2d")!.clearRect(0, 0, SIDE, SIDE);
    this.#isMasked = false;
    this.#show();
  }

  /** Begins with a picture. */
  load(source: CanvasImageSource | Samples): void {
    this.clear();
    const context = this.#picture.getContext("2d")!;
    if ("shape" in source) {
      const canvas = document.createElement("canvas"), [height, width] = source.shape;
      drawSamples(canvas, source);
      context.imageSmoothingEnabled = false;
      // The grid has a border of a pixel.
      context.drawImage(canvas, 1, 1, width, height, 0, 0, SIDE, SIDE);
    } else context.drawImage(source, 0, 0, SIDE, SIDE);
    this.#isEmpty = false;
    this.#show();
  }

  /** A copy of the picture. */
  copy(): Promise<ImageBitmap> {
    return createImageBitmap(this.#picture);
  }

  /** The picture as an image of a shape. */
  read(shape: readonly number[]): Samples {
    return readCanvas(this.#picture, shape);
  }

  /** 1 where it is to be painted anew; `undefined` if nothing is masked. */
  readMask(shape: readonly number[]): Float32Array | undefined {
    if (!this.#isMasked) return undefined;
    const { data } = readCanvas(this.#mask, [...shape.slice(0, 2), 1]);
    return data.map((value) => value > 0 ? 1 : 0);
  }

  #stroke([x, y]: number[], [toX, toY]: number[]): void {
    const layer = this.tool === "mask" ? this.#mask : this.#picture;
    const context = layer.getContext("2d")!;
    context.strokeStyle = this.tool === "erase"
      ? this.#background
      : this.tool === "mask"
      ? "#fff"
      : this.color;
    context.lineWidth = this.brush;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX + 0.01, toY);
    context.stroke();
    if (this.tool === "mask") this.#isMasked = true;
    else this.#isEmpty = false;
    this.#show();
    this.#onChange();
  }

  #key(event: KeyboardEvent): void {
    const moves: Record<string, number[]> = {
      ...{ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] },
    };
    const move = moves[event.key], from = this.#place;
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) {
      this.#place = from.map((v, i) => Math.min(SIDE, Math.max(0, v + STRIDE * move[i])));
      if (!event.shiftKey) return this.#show();
    }
    this.#stroke(from, this.#place);
  }

  #show(): void {
    const context = this.#canvas.getContext("2d")!;
    context.globalAlpha = 1;
    context.drawImage(this.#picture, 0, 0);
    context.globalAlpha = 0.5;
    if (this.#isMasked) {
      const tint = makeLayer(), over = tint.getContext("2d")!;
      over.drawImage(this.#mask, 0, 0);
      over.globalCompositeOperation = "source-in";
      over.fillStyle = "#f60";
      over.fillRect(0, 0, SIDE, SIDE);
      context.drawImage(tint, 0, 0);
    }
    context.globalAlpha = 1;
    // Who draws with a pointer sees that.
    if (!this.#canvas.matches(":focus-visible")) return;
    context.strokeStyle = "#f60";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.#place[0], this.#place[1], this.brush / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

const makeLayer = () =>
  Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
