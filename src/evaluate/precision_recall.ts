/**
 * How many pictures look real, and how much of what is real is among them.
 *
 * @module
 */

import { nearest } from "./nearest.ts";
import { forEachTile, type Rows, TILE, type Work } from "./rows.ts";

/** Shares of two sets, each a ball around every point up to one of its nearest neighbours. */
export interface PrecisionRecall {
  /** The share of the samples that lie in a ball of a real image (Kynkäänniemi et al. 2019). */
  readonly precision: number;
  /** The share of the real images that lie in a ball of a sample (the same). */
  readonly recall: number;
  /**
   * How many balls of real images a sample lies in, as a multiple of the neighbour (Naeem et al.
   * 2020); may exceed 1.
   */
  readonly density: number;
  /** The share of the real images in whose ball lies a sample (the same). */
  readonly coverage: number;
}

/** Settings of {@linkcode precisionRecall}. */
export interface PrecisionRecallOptions extends Work {
  /** Which neighbour a ball of precision and recall reaches. @default {3} */
  readonly neighbor?: number;
  /** The same of density and coverage. @default {5} */
  readonly densityNeighbor?: number;
}

/**
 * Precision, recall, density and coverage. No point is a neighbour of itself. All four depend on how
 * many images there are of either kind; compare only numbers of the same counts.
 *
 * @throws {InputError} If a set has no such neighbours.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { precisionRecall } from "@x/ddpm/evaluate";
 *
 * const rows = (factor: number) => ({
 *   ...{ count: 20, width: 2 },
 *   data: Float32Array.from({ length: 40 }, (_, i) => factor * Math.sin(7 * i)),
 * });
 * const { precision, recall } = await precisionRecall(rows(0.2), rows(1));
 * console.log(precision > recall); // true
 * ```
 */
export async function precisionRecall(
  samples: Rows,
  real: Rows,
  { neighbor = 3, densityNeighbor = 5, signal, onProgress }: PrecisionRecallOptions = {},
): Promise<PrecisionRecall> {
  // Three passes of about as much work.
  const part = (k: number): Work => ({
    ...(signal ? { signal } : {}),
    onProgress: (done, total) => onProgress?.(k + done / total, 3),
  });
  const most = Math.max(neighbor, densityNeighbor);
  const aroundReal = await nearest(real, real, most, part(0));
  const aroundSamples = await nearest(samples, samples, neighbor, part(1));
  const radius = (i: number, k: number) => aroundReal.squares[i * most + k - 1];
  const isPrecise = new Uint8Array(samples.count), isRecalled = new Uint8Array(real.count);
  const isCovered = new Uint8Array(real.count);
  let inside = 0;
  const options = { ...part(2), kind: "distance" } as const;
  await forEachTile(samples, real, options, ({ rows, columns, values }) => {
    for (let i = rows[0]; i < rows[1]; i++) {
      const from = (i - rows[0]) * TILE - columns[0];
      const own = aroundSamples.squares[(i + 1) * neighbor - 1];
      for (let j = columns[0]; j < columns[1]; j++) {
        const square = values[from + j];
        // As the authors of each compare where distances are equal.
        if (square <= radius(j, neighbor)) isPrecise[i] = 1;
        if (square <= own) isRecalled[j] = 1;
        if (square >= radius(j, densityNeighbor)) continue;
        inside++;
        isCovered[j] = 1;
      }
    }
  });
  const share = (marks: Uint8Array) => marks.reduce((sum, x) => sum + x, 0) / marks.length;
  return {
    ...{ precision: share(isPrecise), recall: share(isRecalled), coverage: share(isCovered) },
    density: inside / (densityNeighbor * samples.count),
  };
}
