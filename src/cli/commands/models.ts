/**
 * `ddpm models`: the models that come with the package.
 *
 * @module
 */

import cards from "../../../data/models.json" with { type: "json" };
import { InputError } from "../../errors.ts";
import { fetchModel } from "../../model/pretrained.ts";
import { paintedShape } from "../../sample/latent_sampler.ts";
import { shippedModels } from "../../model/shipped.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { columns, print } from "../terminal/progress.ts";

/** The flags of `models`. */
export const modelsFlags = {
  json: { kind: "switch", help: "print JSON" },
} as const satisfies Record<string, Flag>;

/** What `data/models.json` says of a model; its metrics are those of its card. */
interface Card {
  readonly about: string;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Runs the command. */
export async function modelsCommand(args: readonly string[]): Promise<void> {
  const { flags, rest } = parseFlags(args, modelsFlags);
  if (rest.length) throw new InputError(`models takes flags only, not ${rest[0]}`);
  const models = await Promise.all(shippedModels.map(async (name) => {
    const model = await fetchModel(name), { network, classes } = model;
    const { about, metrics }: Card = cards[name], shape = paintedShape(model, network.itemShape);
    return {
      ...{ name, about, shape, classes: classes?.length ?? 0 },
      ...{ parameters: network.layout.count, metrics },
    };
  }));
  if (flags.json) return print(JSON.stringify(models, null, 2));
  const names = [...new Set(models.flatMap(({ metrics }) => Object.keys(metrics)))];
  const rows = models.map(({ name, about, shape, classes, parameters, metrics }) => [
    ...[name, shape.join("x"), classes ? String(classes) : "none", parameters.toLocaleString("en")],
    ...names.map((metric) => metric in metrics ? String(metrics[metric]) : ""),
    about,
  ]);
  rows.unshift(["model", "image", "classes", "parameters", ...names, "paints"]);
  print(columns(rows, rows[0].length).join("\n"));
}
