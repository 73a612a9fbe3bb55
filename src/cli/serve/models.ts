/**
 * Models that are served, by names that tell nothing of where they are.
 *
 * @module
 */

import { basename, dirname } from "@std/path";
import { InputError } from "../../errors.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { guidanceOfModel, usualGuidance } from "../../sample/guidance/usual.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import type { Shape } from "../../shape.ts";
import { classesOf } from "../commands/class_flags.ts";
import { usualSize } from "../commands/text_to_image.ts";
import { isHubPlace } from "../hub/place.ts";
import { locate } from "../run/load_model.ts";
import { openLocated } from "../run/open_model.ts";
import { openTextToImage } from "../run/text_to_image.ts";
import { shippedModels } from "../../model/shipped.ts";
import { type Plan, planJob } from "./plan.ts";
import { planTexts } from "./plan_texts.ts";
import type { JobRequest, ServedModel } from "./schemas.ts";

/** A model that is served. */
export interface Served {
  readonly facts: ServedModel;
  /** @throws {InputError} If the model cannot do what is asked for. */
  plan(request: JobRequest): Promise<Plan>;
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
 * @param isUnchecked Whether their safety checkers are left out.
 * @throws {InputError} If one cannot be opened or makes no pictures, or two have one name.
 */
export async function openModels(
  places: readonly string[],
  isUnchecked = false,
): Promise<ReadonlyMap<string, Served>> {
  const served = new Map<string, Served>();
  for (const place of places) {
    const name = nameOf(place);
    if (served.has(name)) {
      throw new InputError(`Cannot serve ${place}: there is a model ${name} already; rename one`);
    }
    served.set(name, await describe(name, place, isUnchecked));
  }
  return served;
}

async function describe(name: string, place: string, isUnchecked: boolean): Promise<Served> {
  const refuse = (why: string) => new InputError(`Cannot serve ${place}: ${why}`);
  const located = await locate(place), painter = await openTextToImage(located, isUnchecked);
  if (painter) return serveTexts(name, painter.model);
  const model = await openLocated(place, located);
  const network = denoisingNetwork(model);
  const { itemShape, layout, multiple = 1, tokenize } = network;
  const item: Shape = itemShape.map((n) => n ?? multiple);
  const shape = paintedShape(model, itemShape);
  const channels = shape.at(-1);
  if (item.length !== 3 || channels !== 1 && channels !== 3) {
    throw refuse("it makes no pictures of 1 or 3 channels");
  }
  const { labels: _, tokens, ...others } = network.conditions(item);
  const needed = Object.keys(others);
  if (needed.length) throw refuse(`it needs ${needed.join(" and ")}, which it cannot be given`);
  const { names, none } = classesOf(model, item) ?? {};
  const reads = tokens !== undefined && tokenize !== undefined;
  const guidance = guidanceOfModel({ none, reads });
  const facts: ServedModel = {
    ...{ name, shape: [...shape], parameters: layout.count },
    ...(names ? { classes: [...names] } : {}),
    ...(none === undefined ? {} : { none }),
    ...{ reads, ...(guidance ? { guidance } : {}) },
  };
  return { facts, plan: (request) => planJob(model, name, request) };
}

/** What paints texts by way of latents. */
function serveTexts(name: string, model: TextToImageModel): Served {
  const { denoiser, autoencoder, textEncoder } = model;
  const networks = [denoiser, autoencoder, textEncoder].map(({ network }) => network);
  return {
    facts: {
      ...{ name, shape: [...usualSize(model), autoencoder.network.itemShape[2]], reads: true },
      guidance: usualGuidance.latents,
      parameters: networks.reduce((n, { layout }) => n + layout.count, 0),
    },
    plan: (request) => planTexts(model, name, request),
  };
}
