/**
 * Two small images with their noise, for tests of losses and steps.
 *
 * @module
 */

import { constant } from "../../src/gpu/tensor.ts";
import type { Batch } from "../../src/train/objective.ts";
import { Random } from "../random.ts";

export const shape = [2, 4, 4, 1], timesteps = [100, 900];
const random = new Random("batch");
export const [images, noise] = [1, 2].map((most) =>
  Float64Array.from({ length: 32 }, () => random.between(-most, most))
);
export const batch: Batch = {
  images: constant(images, shape),
  noise: constant(noise, shape),
  timesteps: constant(new Int32Array(timesteps)),
};
