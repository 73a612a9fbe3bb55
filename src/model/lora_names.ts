/**
 * The names of tensors in files of LoRA: which weight of which network each is for. There are those of
 * kohya's scripts, which write modules with underscores, and those of diffusers and peft, old and new.
 *
 * @module
 */

import type { ParameterLayout } from "./parameters.ts";

/** What a tensor is of a change: one of the two matrices, or their strength. */
export type Part = "up" | "down" | "alpha";

/** The networks that are changed, as pipelines of diffusers call them. */
export type ChangedNetwork = "unet" | "text_encoder";

/** What all names of a network begin with. */
const PREFIXES: readonly (readonly [RegExp, ChangedNetwork])[] = [
  [/^lora_unet_/, "unet"],
  [/^lora_te_/, "text_encoder"],
  [/^unet\./, "unet"],
  [/^text_encoder\./, "text_encoder"],
  // What early versions of diffusers saved are processors of attention of the UNet.
  [/^(?=(down_blocks|mid_block|up_blocks)\.)/, "unet"],
];

/** How names of the two matrices end. */
const MATRIX =
  /^(.+?)(?:\.lora_(down|up|A|B)|\.lora\.(down|up)|\.lora_linear_layer\.(down|up)|_lora\.(down|up))\.weight$/;
const ALPHA = /^(.+?)(?:\.lora|_lora)?\.alpha$/;
const parts: Readonly<Record<string, Part>> = { down: "down", up: "up", A: "down", B: "up" };

/** What processors called the layers of attention, and what these are in text encoders. */
const former: Readonly<Record<ChangedNetwork, readonly (readonly [RegExp, string])[]>> = {
  unet: [[/\.processor\./, "."], [/\.to_out$/, ".to_out.0"]],
  text_encoder: [
    [/\.to_(q|k|v)$/, ".$1_proj"],
    [/\.to_out$/, ".out_proj"],
  ],
};

/**
 * What a name says: the module whose weight is changed, `unet:` or `text_encoder:` and its name with
 * underscores for dots, and which part of the change it is.
 *
 * @returns `undefined` if it is no name of this kind.
 */
export function moduleOf(
  name: string,
): { readonly module: string; readonly part: Part } | undefined {
  const matrix = MATRIX.exec(name), alpha = matrix ? null : ALPHA.exec(name);
  const [, path, ...kinds] = matrix ?? alpha ?? [];
  const prefix = path && PREFIXES.find(([pattern]) => pattern.test(path));
  if (!prefix) return undefined;
  const [pattern, network] = prefix;
  const own = former[network].reduce(
    (name, [pattern, present]) => name.replace(pattern, present),
    path.replace(pattern, ""),
  );
  return {
    module: `${network}:${own.replaceAll(".", "_")}`,
    part: alpha ? "alpha" : parts[kinds.find((kind) => kind !== undefined)!],
  };
}

/** The weights of layouts by the modules that they are of. */
const known = new WeakMap<ParameterLayout, ReadonlyMap<string, number>>();

function indexOf(layout: ParameterLayout): ReadonlyMap<string, number> {
  const found = known.get(layout) ?? new Map(
    layout.specs.flatMap(({ name, shape }, i) =>
      shape.length > 1 && name.endsWith(".weight")
        ? [[name.slice(0, -".weight".length).replaceAll(".", "_"), i] as const]
        : []
    ),
  );
  known.set(layout, found);
  return found;
}

/** The weight of a module; `undefined` if there is none. */
export function findModule(
  module: string,
  layouts: Readonly<Record<ChangedNetwork, ParameterLayout>>,
): { readonly network: ChangedNetwork; readonly index: number } | undefined {
  const [network, name] = module.split(":") as [ChangedNetwork, string];
  const index = indexOf(layouts[network]).get(name);
  return index === undefined ? undefined : { network, index };
}
