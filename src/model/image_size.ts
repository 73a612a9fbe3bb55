/**
 * Which images fit a network that halves them from level to level.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";

/**
 * Checks that images `[batch, height, width, channels]` can be halved as often as a network does.
 *
 * @param levels How many resolutions it has.
 * @throws {InputError} If they cannot, or have other channels.
 */
export function checkSize(sample: Tensor, channels: number, levels: number): void {
  const [, height, width, given] = sample.shape, factor = 2 ** (levels - 1);
  if (given !== channels) {
    throw new InputError(`The network takes images of ${channels} channels, not ${given}`);
  }
  if (height % factor || width % factor) {
    const fit = [height, width].map((n) => Math.max(factor, Math.round(n / factor) * factor));
    throw new InputError(
      `Images of ${height}x${width} do not fit a network of ${levels} resolutions: sides must be ` +
        `multiples of ${factor}, ${fit.join("x")} for instance`,
    );
  }
}
