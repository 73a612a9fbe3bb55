/**
 * What the configurations of diffusers' `AutoencoderKL` and `VQModel` have in common.
 *
 * @module
 */

import { z } from "zod";
import { type CamelKeys, givenFields, parseWith, toCamelCase, toSnakeCase } from "../config.ts";
import { InputError } from "../errors.ts";
import type { Fields } from "./network.ts";

const count = z.int().positive();
// More channels and layers than anybody has mean a damaged file, which must not eat all memory.
const channels = count.max(65536), layers = count.max(100);

/** Fields of both as they are in files, with the defaults of diffusers. */
export const autoencoderFields = {
  in_channels: channels.default(3),
  out_channels: channels.default(3),
  down_block_types: z.array(z.enum(["DownEncoderBlock2D", "AttnDownEncoderBlock2D"])).min(1)
    .default(["DownEncoderBlock2D"]),
  up_block_types: z.array(z.enum(["UpDecoderBlock2D", "AttnUpDecoderBlock2D"])).min(1)
    .default(["UpDecoderBlock2D"]),
  block_out_channels: z.array(channels).min(1).max(16).default([64]),
  layers_per_block: layers.default(1),
  act_fn: z.enum(["silu", "swish", "mish", "gelu", "relu"]).default("silu"),
  latent_channels: channels,
  norm_num_groups: count.default(32),
  sample_size: z.union([count, z.tuple([count, count])]).default(32),
  scaling_factor: z.number().positive().default(0.18215),
  /** What 16-bit floats of activations would need; they are 32 bits wide here. */
  force_upcast: z.boolean(),
  mid_block_add_attention: z.boolean().default(true),
};

const common = z.strictObject(autoencoderFields);
/** What both configurations say. */
export type AutoencoderConfig = CamelKeys<z.infer<typeof common>>;

/**
 * Reads a configuration; fields that start with an underscore are ignored, and what is null is not
 * given.
 *
 * @param only Fields that are supported at one value only.
 * @throws {InputError} If a field is unknown, out of range or not supported, or contradicts another.
 */
export function parseAutoencoder<T extends object>(
  schema: z.ZodType<T>,
  fields: Fields,
  only: Fields,
  className: string,
): CamelKeys<T> {
  const what = `configuration of an ${className}`, given = givenFields(fields);
  for (const [key, right] of Object.entries(only)) {
    if (key in given && given[key] !== right) {
      throw new InputError(
        `Bad ${what}: ${key} ${JSON.stringify(given[key])} is not supported: here it can only be ` +
          JSON.stringify(right),
      );
    }
    delete given[key];
  }
  const config = toCamelCase(parseWith(schema, given, what));
  checkConsistent(config as unknown as AutoencoderConfig, what);
  return config;
}

/** The configuration as diffusers reads it; fields newer than its version 0.20 where they say something. */
export function formatAutoencoder(config: object, newer: Fields): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(toSnakeCase(config)).filter(([key, value]) =>
      !(key in newer) || newer[key] !== value
    ),
  );
}

function checkConsistent(config: AutoencoderConfig, what: string): void {
  const { blockOutChannels, downBlockTypes, upBlockTypes, normNumGroups } = config;
  const levels = blockOutChannels.length, { inChannels, outChannels } = config;
  if (downBlockTypes.length !== levels || upBlockTypes.length !== levels) {
    throw new InputError(
      `Bad ${what}: ${levels} block_out_channels need as many down_block_types and ` +
        `up_block_types, not ${downBlockTypes.length} and ${upBlockTypes.length}`,
    );
  }
  if (inChannels !== outChannels) {
    throw new InputError(
      `Bad ${what}: in_channels ${inChannels} and out_channels ${outChannels} must be equal, since ` +
        "it gives back what it is given",
    );
  }
  const odd = blockOutChannels.find((channels) => channels % normNumGroups);
  if (odd === undefined) return;
  throw new InputError(
    `Bad ${what}: ${odd} of block_out_channels is no multiple of norm_num_groups, ${normNumGroups}`,
  );
}
