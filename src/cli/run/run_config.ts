/**
 * The configuration of a training as a JSON file, and as presets.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { imagesSchema } from "../../data/image_options.ts";
import { foreignUNetFields, unetSchema } from "../../model/unet_config.ts";
import { FEATURE_CLASSIFIER, featureClassifierSchema } from "../../model/feature_classifier.ts";
import { DUAL_ENCODER, dualEncoderSchema } from "../../model/dual_encoder.ts";
import { autoencoderKlSchema } from "../../model/autoencoder_kl.ts";
import { vqModelSchema } from "../../model/vq_model.ts";
import { unetClassifierSchema } from "../../model/unet_classifier.ts";
import { TEXT_UNET, textUNetSchema } from "../../model/text_unet.ts";
import { SUPER_RESOLUTION, superResolutionSchema } from "../../model/super_resolution.ts";
import { scheduleSchema } from "../../diffusion/schedule.ts";
import { foreignScheduleFields } from "../../diffusion/schedulers.ts";
import { trainingSchema } from "../../train/config.ts";
import {
  MAX_STEPS,
  parseRunConfig,
  type RunConfig,
  type RunFields,
  runSchema,
} from "../../train/run_config.ts";
import { kindOf, readJson, refuseStdin } from "../terminal/files.ts";
import { suggest } from "../terminal/flags.ts";
import autoencoder from "./presets/autoencoder.json" with { type: "json" };
import cifar10 from "./presets/cifar10.json" with { type: "json" };
import classifier from "./presets/classifier.json" with { type: "json" };
import dualEncoder from "./presets/dual-encoder.json" with { type: "json" };
import emoji from "./presets/emoji.json" with { type: "json" };
import features from "./presets/features.json" with { type: "json" };
import fashionMnist from "./presets/fashion-mnist.json" with { type: "json" };
import mnist from "./presets/mnist.json" with { type: "json" };
import tiny from "./presets/tiny.json" with { type: "json" };

/** The presets. */
export const presets: Readonly<Record<string, RunFields>> = {
  mnist,
  "fashion-mnist": fashionMnist,
  cifar10,
  emoji,
  autoencoder,
  classifier,
  features,
  "dual-encoder": dualEncoder,
  tiny,
};

/**
 * Reads a preset or a configuration file; its sections are not validated yet. Names of presets take
 * precedence: a file of the same name is `./NAME`.
 *
 * @throws {InputError} If it cannot be read or is not such a file.
 */
export async function readRunFields(place: string): Promise<RunFields> {
  refuseStdin(place, "a configuration");
  if (Object.hasOwn(presets, place)) return presets[place];
  if (!/[./\\]/.test(place) && await kindOf(place) === "nothing") {
    const names = Object.keys(presets);
    throw new InputError(
      `There is no configuration ${place}: give a file, or one of ${names.join(", ")}` +
        suggest(place, names),
    );
  }
  return parseWith(runSchema, await readJson(place), place);
}

/** @throws {InputError} If it is not a complete configuration. */
export const readRunConfig = async (path: string): Promise<RunConfig> =>
  parseRunConfig(await readJson(path), path);

/** The JSON schema of configuration files, for editors. */
export function configSchema(): Record<string, unknown> {
  const section = (schema: z.ZodType) => {
    const options = { io: "input", unrepresentable: "any" } as const;
    const { $schema: _, ...rest } = z.toJSONSchema(schema, options);
    // Fields that start with an underscore are notes of other tools.
    return { ...rest, patternProperties: { "^_": {} } };
  };
  /** A section that files of diffusers may be, where null is "not given". */
  const shared = (schema: z.ZodType, foreign: readonly string[]) => {
    const { properties = {}, ...rest } = section(schema), names = Object.keys(properties);
    const fields = names.map((name) => [name, { anyOf: [properties[name], { type: "null" }] }]);
    const others = foreign.map((name) => [name, {}]);
    return { ...rest, properties: Object.fromEntries([...fields, ...others]) };
  };
  // Of the classes that the package brings; a UNet2DModel need not say so.
  const unet = unetSchema.extend({ _class_name: z.literal("UNet2DModel").optional() });
  const larger = superResolutionSchema.extend({ _class_name: z.literal(SUPER_RESOLUTION) });
  const reader = textUNetSchema.extend({ _class_name: z.literal(TEXT_UNET) });
  const judge = unetClassifierSchema.extend({ _class_name: z.literal("UNet2DClassifier") });
  const look = featureClassifierSchema.extend({ _class_name: z.literal(FEATURE_CLASSIFIER) });
  const dual = dualEncoderSchema.extend({ _class_name: z.literal(DUAL_ENCODER) });
  const kl = autoencoderKlSchema.extend({ _class_name: z.literal("AutoencoderKL") });
  const vq = vqModelSchema.extend({ _class_name: z.literal("VQModel") });
  const network = {
    anyOf: [
      ...[unet, larger, judge].map((s) => shared(s, foreignUNetFields)),
      ...[reader, look, dual, kl, vq].map((s) => shared(s, [])),
    ],
  };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Configuration of ddpm train",
    type: "object",
    properties: {
      $schema: { type: "string" },
      data: { type: "string", description: "a data set's name, a folder or a file" },
      steps: { type: "integer", minimum: 1, maximum: MAX_STEPS },
      images: section(imagesSchema),
      latent: { type: "string", description: "an autoencoder, on whose latents to train" },
      ...{ network, unet: network },
      scheduler: shared(scheduleSchema, foreignScheduleFields),
      training: section(trainingSchema),
    },
    additionalProperties: false,
  };
}
