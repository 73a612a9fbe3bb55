/**
 * How far guidance goes where nobody says.
 *
 * @module
 */

import type { GuidanceOptions } from "./extrapolate.ts";

/** Settings of guidance with a scale. */
export type UsualGuidance = GuidanceOptions & { readonly scale: number };

/** Settings of guidance, by what it leads towards. */
export const usualGuidance = {
  /**
   * Classes. Of 2048 digits of the model `mnist` 98.9 % are those asked for, at a Fréchet distance of
   * 2.61 from the test set; scale 2 makes 99.0 %, at 2.78, scale 1.5 98.5 %, at 2.46, and no guidance
   * 96.8 %, at 2.28. Training images are at 2.14.
   */
  classes: { scale: 1.75, interval: [0.3, 1.6] },
  /**
   * Texts. Of emoji whose names the model `emoji` never saw, 50.0 % are of the right category then,
   * 43.8 % at 2, and 38.5 % without.
   */
  texts: { scale: 4 },
  /** Texts, of models of latents: what is usual with Stable Diffusion. */
  latents: { scale: 7.5 },
  /** The estimate of a model, away from that of a weaker one. */
  guide: { scale: 2 },
} as const satisfies Record<string, UsualGuidance>;

/**
 * The guidance of a model, by what is known of it; `undefined` if there is nothing to lead towards.
 *
 * @param none Its class that stands for none.
 * @param reads Whether it takes prompts.
 */
export const guidanceOfModel = (
  { none, reads }: { readonly none?: number | undefined; readonly reads: boolean },
): UsualGuidance | undefined =>
  reads ? usualGuidance.texts : none === undefined ? undefined : usualGuidance.classes;
