/**
 * Models that are served, by names that tell nothing of where they are.
 *
 * @module
 */

import { basename, dirname } from "@std/path";
import { InputError } from "../../errors.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { Model } from "../../model/model.ts";
import type { Shape } from "../../shape.ts";
import { classesOf } from "../commands/class_flags.ts";
import { isHubPlace } from "../hub/place.ts";
import { openModel } from "../run/open_model.ts";
import { shippedModels } from "../../model/shipped.ts";
import type { ServedModel } from "./schemas.ts";

/** A model that is served. */
export interface Served {
  readonly model: Model;
  readonly facts: ServedModel;
}

/** What a model is called: the last part of its path that says anything. */
export function nameOf(place: string): string {
  if (isHubPlace(place) || shippedModels.some((name) => name === place)) return place;
  const name = basename(place).replace(/\.[^.]*$/, "");
  if (name !== "model" && !name.startsWith("state")) return name;
  return basename(dirname(place)) || name;
}

/**
 * Opens models.
 *
 * @throws {InputError} If one cannot be opened or makes no pictures, or two have one name.
 */
export async function openModels(
  places: readonly string[],
): Promise<ReadonlyMap<string, Served>> {
  const served = new Map<string, Served>();
  for (const place of places) {
    const name = nameOf(place);
    if (served.has(name)) {
      throw new InputError(`Cannot serve ${place}: there is a model ${name} already; rename one`);
    }
    served.set(name, await describe(name, place));
  }
  return served;
}

async function describe(name: string, place: string): Promise<Served> {
  const model = await openModel(place), network = denoisingNetwork(model);
  const { itemShape, layout, multiple = 1, tokenize } = network;
  const item: Shape = itemShape.map((n) => n ?? multiple), channels = item[item.length - 1];
  const refuse = (why: string) => new InputError(`Cannot serve ${place}: ${why}`);
  if (item.length !== 3 || channels !== 1 && channels !== 3) {
    throw refuse("it makes no pictures of 1 or 3 channels");
  }
  const { labels: _, tokens, ...others } = network.conditions(item);
  const needed = Object.keys(others);
  if (needed.length) throw refuse(`it needs ${needed.join(" and ")}, which it cannot be given`);
  const { names, none } = classesOf(model, item) ?? {};
  return {
    model,
    facts: {
      ...{ name, shape: [...itemShape], parameters: layout.count },
      ...(names ? { classes: [...names] } : {}),
      ...(none === undefined ? {} : { none }),
      ...{ reads: tokens !== undefined && tokenize !== undefined },
    },
  };
}
