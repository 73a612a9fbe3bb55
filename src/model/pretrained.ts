/**
 * Models that come with the package.
 *
 * @module
 */

import { type DualEncoderModel, type Model, readDualEncoder, readModel } from "./model.ts";
import type { ShippedDualEncoder, ShippedFeatures, ShippedModel } from "./shipped.ts";

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
 * Loads a dual encoder that comes with the package, for `dualEncoderFeatures()`.
 *
 * @throws {TypeError} If it cannot be reached.
 * @throws {InputError} If it is damaged.
 *
 * @example
 * ```ts
 * import { fetchDualEncoder } from "@x/ddpm/evaluate";
 *
 * const { network } = await fetchDualEncoder("emoji");
 * console.log(network.itemShape, network.width); // [32, 32, 3], 64
 * ```
 */
export async function fetchDualEncoder(name: ShippedDualEncoder): Promise<DualEncoderModel> {
  const file = new URL(`../../data/${name}-dual-encoder.safetensors`, import.meta.url);
  return readDualEncoder(await fetchBytes(file), `the dual encoder of ${name}`);
}

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
  return readModel(await fetchBytes(url), `the model ${model}`);
}

/** @throws {TypeError} If they cannot be reached. */
async function fetchBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url);
  if (!response.ok) throw new TypeError(`Cannot load ${url}: the answer is ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}
