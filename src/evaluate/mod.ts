/**
 * Measures of how good pictures are: distances of their features from those of real ones, shares that
 * look real, what a classifier sees, and copies of what a model learnt from.
 *
 * @example
 * ```ts
 * import { frechetDistance, Moments } from "@x/ddpm/evaluate";
 *
 * const gaussian = (shift: number) => {
 *   const moments = new Moments(2);
 *   const data = Float32Array.from({ length: 40 }, (_, i) => shift + Math.sin(7 * i));
 *   moments.add({ count: 20, width: 2, data });
 *   return moments.gaussian();
 * };
 * console.log(await frechetDistance(gaussian(0), gaussian(1))); // 2, the square of the shift
 * ```
 *
 * @module
 */

export { fetchDualEncoder, fetchFeatures } from "../model/pretrained.ts";
export type { ShippedDualEncoder, ShippedFeatures } from "../model/shipped.ts";
export { classifierFeatures, type ClassifierFeaturesOptions } from "./classifier_features.ts";
export {
  dualEncoderFeatures,
  type DualEncoderFeaturesOptions,
  type TextFeatureExtractor,
} from "./dual_encoder_features.ts";
export type { Extracted, FeatureExtractor } from "./feature_extractor.ts";
export { frechetDistance } from "./frechet_distance.ts";
export {
  inceptionFeatures,
  type InceptionOptions,
  type InceptionPreprocessing,
} from "./inception.ts";
export { type InceptionScore, inceptionScore } from "./inception_score.ts";
export {
  type KernelDistance,
  kernelDistance,
  type KernelDistanceOptions,
  squaredDiscrepancy,
} from "./kernel_distance.ts";
export { type Gaussian, Moments } from "./moments.ts";
export { findNeighbors, type Neighbors } from "./near_copies.ts";
export { type Nearest, nearest } from "./nearest.ts";
export {
  type PrecisionRecall,
  precisionRecall,
  type PrecisionRecallOptions,
} from "./precision_recall.ts";
export { type Recognition, recognize } from "./recognition.ts";
export {
  type Captioned,
  type Retrieval,
  retrieve,
  retrieveTexts,
  type TextRetrieval,
} from "./retrieval.ts";
export type { Rows, Work } from "./rows.ts";
export {
  encodeStatistics,
  mergeStatistics,
  readStatistics,
  type Statistics,
} from "./statistics_file.ts";
