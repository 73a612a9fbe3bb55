/**
 * Models that come with the package.
 *
 * @module
 */

import { type Model, readModel } from "./model.ts";
import type { ShippedFeatures, ShippedModel } from "./shipped.ts";

/**
 * Loads a classifier that comes with the package, for `classifierFeatures()`.
 *
 * @throws {TypeError} If it cannot be reached.
 * @throws {InputError} If it is damaged.
 *
 * @example
 * ```ts
 * import { openDevice } from "@x/ddpm";
 * import { classifierFeatures, fetchFeatures } from "@x/ddpm/evaluate";
 *
 * using device = await openDevice("cpu");
 * using extractor = await classifierFeatures(device, await fetchFeatures("mnist"));
 * console.log(extractor.shape, extractor.width); // [28, 28, 1], 64
 * ```
 */
export const fetchFeatures = (name: ShippedFeatures): Promise<Model> =>
  fetchModel(new URL(`../../data/${name}-features.safetensors`, import.meta.url));

/**
 * Loads a model that comes with the package, or one from any address.
 *
 * @throws {TypeError} If it cannot be reached.
 * @throws {InputError} If it is damaged.
 *
 * @example
 * ```ts
 * import { fetchModel } from "@x/ddpm";
 *
 * const model = await fetchModel("mnist");
 * console.log(model.network.itemShape); // [28, 28, 1]
 * ```
 */
export async function fetchModel(model: ShippedModel | URL): Promise<Model> {
  const url = model instanceof URL
    ? model
    : new URL(`../../data/${model}.safetensors`, import.meta.url);
  const response = await fetch(url);
  if (!response.ok) throw new TypeError(`Cannot load ${url}: the answer is ${response.status}`);
  return readModel(new Uint8Array(await response.arrayBuffer()), `the model ${model}`);
}
