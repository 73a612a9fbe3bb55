/**
 * Models that come with the package.
 *
 * @module
 */

import { type Model, readModel } from "./model.ts";

/** The name of a model that comes with the package; `data/README.md` has a card for each. */
export type ShippedModel = "mnist";

/** All of them. */
export const shippedModels: readonly ShippedModel[] = ["mnist"];

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
