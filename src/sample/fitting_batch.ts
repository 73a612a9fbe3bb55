/**
 * Batches that fit a device.
 *
 * @module
 */

import { LimitError } from "../gpu/device.ts";

/**
 * Makes something for a batch, or for half of it, and so on, until it fits the device.
 *
 * @throws {LimitError} If not even a batch of 1 does.
 */
export async function fittingBatch<T>(
  batchSize: number,
  make: (batchSize: number) => Promise<T>,
): Promise<T> {
  try {
    return await make(batchSize);
  } catch (error) {
    if (!(error instanceof LimitError) || batchSize === 1) throw error;
    return await fittingBatch(Math.ceil(batchSize / 2), make);
  }
}
