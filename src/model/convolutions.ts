/**
 * Small convolutional networks that look at pictures of one size: 3 × 3 convolutions, of which all but
 * the first halve the size.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../errors.ts";
import { relu } from "../gpu/ops/map.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { formatShape, type Shape, sizeOf } from "../shape.ts";
import { conv, type WithParameters } from "./layers.ts";

const side = z.int().min(1).max(4096);

/** A number of channels or features, as in files. */
export const widthSchema = z.int().min(1).max(65536);

/** Fields of configurations, as in files: which pictures a network looks at, and its convolutions. */
export const convolutionFields = {
  sample_size: z.union([side.transform((n) => [n, n]), z.tuple([side, side])]).default([28, 28]),
  in_channels: z.int().min(1).max(4).default(1),
  block_out_channels: z.array(widthSchema).min(1).max(10).default([16, 32, 48, 48]),
};

/** The values of these fields. */
export interface ConvolutionConfig {
  readonly sample_size: readonly number[];
  readonly in_channels: number;
  readonly block_out_channels: readonly number[];
}

/** The shape of the pictures. */
export const pictureShape = ({ sample_size, in_channels }: ConvolutionConfig): Shape => [
  ...sample_size,
  in_channels,
];

/** Half as many rows and columns, rounded up. */
const halving = { stride: 2, padding: [1, 1, 1, 1] } as const;

/**
 * What the last convolution makes of pictures `[batch, height, width, channels]` in [-1, 1], as
 * `[batch, features]`.
 *
 * @throws {InputError} If the pictures are of another shape.
 */
export function convolutions(
  net: WithParameters,
  config: ConvolutionConfig,
  pictures: Tensor,
): Tensor {
  const shape = pictureShape(config), [batch, ...given] = pictures.shape;
  if (given.join() !== shape.join()) {
    throw new InputError(
      `The network is for pictures of ${formatShape(shape)}, not of ${formatShape(given)}`,
    );
  }
  let h = pictures;
  config.block_out_channels.forEach((channels, i) => {
    h = relu(conv(net, `convs.${i}`, h, channels, 3, i ? { window: halving } : {}));
  });
  return reshape(h, [batch, sizeOf(h.shape.slice(1))]);
}
