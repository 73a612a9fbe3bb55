/**
 * The training images next to samples, and next to images that a model never saw.
 *
 * @module
 */

import { findNeighbors, type Neighbors, neighborsOf } from "../../evaluate/near_copies.ts";
import { NearestSearch } from "../../evaluate/nearest.ts";
import type { Rows, Work } from "../../evaluate/rows.ts";

/** What distances are taken of. */
export const SPACES = ["features", "pixels"] as const;
/** One of them. */
export type Space = typeof SPACES[number];

/** What was found for samples, and for images held out where there are any. */
export interface NeighborMeasures {
  readonly space: Space;
  readonly samples: Neighbors;
  readonly heldOut?: Neighbors;
}

/** Looks for both while the training images pass by. */
export class NeighborSearch {
  readonly #space: Space;
  readonly #searches: readonly NearestSearch[];

  constructor(space: Space, samples: Rows, heldOut: Rows | undefined) {
    this.#space = space;
    this.#searches = [samples, ...(heldOut ? [heldOut] : [])].map((rows) =>
      new NearestSearch(rows, 2)
    );
  }

  /** Takes a batch of training images. */
  async add(features: Rows, pixels: Rows, work: Work): Promise<void> {
    for (const search of this.#searches) {
      await search.add(this.#space === "features" ? features : pixels, work);
    }
  }

  /** @throws {InputError} If there were fewer than two. */
  found(): NeighborMeasures {
    const [samples, heldOut] = this.#searches.map((search) => neighborsOf(search.found()));
    return { space: this.#space, samples, ...(heldOut ? { heldOut } : {}) };
  }
}

/** The same where the features of all training images are at hand. */
export async function neighborsAmong(
  samples: Rows,
  training: Rows,
  work: Work,
): Promise<NeighborMeasures> {
  return { space: "features", samples: await findNeighbors(samples, training, work) };
}

/** The middle one of some numbers. */
export function median(values: Float64Array): number {
  const sorted = values.toSorted(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The samples that are nearest to a training image, the nearest first. */
export const closest = ({ distances }: Neighbors, most: number): number[] =>
  Array.from(distances.keys()).sort((a, b) => distances[a] - distances[b]).slice(0, most);
