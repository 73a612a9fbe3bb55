/**
 * Probabilities of classes, in double precision.
 *
 * @module
 */

import type { Rows } from "./rows.ts";

/** Writes the probabilities that a row of logits stands for. */
export function probabilitiesOf({ width, data }: Rows, row: number, out: Float64Array): void {
  let most = -Infinity, sum = 0;
  for (let c = 0; c < width; c++) most = Math.max(most, data[row * width + c]);
  for (let c = 0; c < width; c++) sum += out[c] = Math.exp(data[row * width + c] - most);
  for (let c = 0; c < width; c++) out[c] /= sum;
}
