/**
 * What a Worker keeps for a page, which knows it by number.
 *
 * @module
 */

import { DeviceError } from "../gpu/device.ts";
import type { DenoisingNetwork } from "../model/network.ts";
import type { LatentSampler } from "../sample/latent_sampler.ts";
import type { Sampler } from "../sample/sampler.ts";
import type { OpenedSampler } from "./protocol.ts";

/** Things by number. */
export class Table<T> {
  readonly #things = new Map<number, T>();
  #next = 0;

  add(thing: T): number {
    this.#things.set(this.#next, thing);
    return this.#next++;
  }

  get(id: number): T {
    const thing = this.#things.get(id);
    if (thing === undefined) throw new DeviceError("It was disposed of");
    return thing;
  }

  take(id: number): T | undefined {
    const thing = this.#things.get(id);
    this.#things.delete(id);
    return thing;
  }
}

/** A sampler, and how its network reads. */
export interface Compiled {
  readonly sampler: Sampler | LatentSampler;
  readonly tokenize: DenoisingNetwork["tokenize"] | undefined;
}

/** Keeps a sampler, and tells of it. */
export function addSampler(
  samplers: Table<Compiled>,
  sampler: Compiled["sampler"],
  tokenize: Compiled["tokenize"],
): OpenedSampler {
  const { itemShape, steps, evaluations } = sampler;
  return { id: samplers.add({ sampler, tokenize }), itemShape, steps, evaluations };
}
