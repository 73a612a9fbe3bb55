/**
 * The names of models that come with the package.
 *
 * @module
 */

/** The name of a model that comes with the package; `data/README.md` has a card for each. */
export type ShippedModel = "mnist" | "mnist-unconditional" | "fashion-mnist" | "emoji";

/** All of them. */
export const shippedModels: readonly ShippedModel[] = [
  "mnist",
  "mnist-unconditional",
  "fashion-mnist",
  "emoji",
];

/** The name of a data set whose features a classifier that comes with the package tells. */
export type ShippedFeatures = "mnist" | "fashion-mnist" | "emoji";

/** All of them. */
export const shippedFeatures: readonly ShippedFeatures[] = ["mnist", "fashion-mnist", "emoji"];

/** The name of a data set whose pictures a dual encoder that comes with the package compares with texts. */
export type ShippedDualEncoder = "emoji";

/** All of them. */
export const shippedDualEncoders: readonly ShippedDualEncoder[] = ["emoji"];
