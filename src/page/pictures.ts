/**
 * Images of a network on canvases, and back.
 *
 * @module
 */

import { makeGrid } from "../sample/pixels.ts";
import type { Samples } from "../sample/options.ts";

/** Draws images side by side. */
export function drawSamples(canvas: HTMLCanvasElement, samples: Samples, columns?: number): void {
  const { width, height, rgba } = makeGrid(samples, 1, 1, columns);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d")!.putImageData(new ImageData(rgba, width, height), 0, 0);
}

/** One of the images. */
export function pick({ shape, data }: Samples, index: number): Samples {
  const size = shape.reduce((a, b) => a * b, 1);
  return { count: 1, shape, data: data.slice(index * size, (index + 1) * size) };
}

/** What a canvas shows as an image of a shape. */
export function readCanvas(source: CanvasImageSource, shape: readonly number[]): Samples {
  const [height, width, channels] = shape, canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const data = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    if (channels === 1) data[i] = (0.299 * r + 0.587 * g + 0.114 * b) / 127.5 - 1;
    else for (let c = 0; c < 3; c++) data[3 * i + c] = [r, g, b][c] / 127.5 - 1;
  }
  return { count: 1, shape, data };
}
