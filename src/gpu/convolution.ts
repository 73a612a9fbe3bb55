/**
 * The sizes of a convolution, which its three directions share on every target.
 *
 * @module
 */

import type { Shape } from "../shape.ts";

/** How a kernel moves over an image. */
export interface Window {
  /** Pixels between the places of the kernel, along both axes. */
  readonly stride: number;
  /** Zeros around the image: top, bottom, left, right. */
  readonly padding: readonly [number, number, number, number];
}

/** Sizes of a convolution, whichever direction it goes. */
export interface ConvSizes extends Window {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly kernelHeight: number;
  readonly kernelWidth: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly outChannels: number;
}

/** Sizes from the shapes of image, kernel and result. */
export function convSizes(image: Shape, kernel: Shape, result: Shape, window: Window): ConvSizes {
  const [batch, height, width, channels] = image, [kernelHeight, kernelWidth] = kernel;
  const [, outHeight, outWidth, outChannels] = result;
  const { stride, padding } = window;
  return {
    ...{ stride, padding, batch, height, width, channels, kernelHeight, kernelWidth },
    ...{ outHeight, outWidth, outChannels },
  };
}
