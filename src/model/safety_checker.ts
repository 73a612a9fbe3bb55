/**
 * The safety checker of Stable Diffusion 1: CLIP's view of a picture beside the vectors of concepts
 * that are not to be shown. It is the `StableDiffusionSafetyChecker` of diffusers, with its names of
 * fields and parameters.
 *
 * @module
 */

import { z } from "zod";
import { givenFields, parseWith } from "../config.ts";
import { div, max, sqrt, square, sub } from "../gpu/ops/map.ts";
import { linear as product } from "../gpu/ops/matmul.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { InputError } from "../errors.ts";
import { clipWidth } from "./clip_layers.ts";
import { clipVisionSchema, seePictures } from "./clip_vision.ts";
import { linear } from "./layers.ts";
import {
  type ConceptScores,
  defineNetwork,
  type Fields,
  type Forward,
  type NetworkMaker,
  networkOf,
  registerNetwork,
  type SafetyCheckerNetwork,
} from "./network.ts";

/** The class of it in configurations. */
export const SAFETY_CHECKER = "StableDiffusionSafetyChecker";
/** Concepts that are not shown, and those that make it stricter about these. */
const CONCEPTS = 17, SPECIAL = 3;

const schema = z.object({
  projection_dim: clipWidth.default(512),
  vision_config: clipVisionSchema,
});

/** The configuration, as in files. */
export type SafetyCheckerConfig = Readonly<z.infer<typeof schema>>;

/** Vectors of length 1 along the last axis. */
const normalized = (x: Tensor): Tensor =>
  div(x, max(sqrt(reshape(sum(square(x), [1]), [x.shape[0], 1])), 1e-12));

function check(config: SafetyCheckerConfig, net: Forward, pictures: Tensor): ConceptScores {
  const { projection_dim: width, vision_config: vision } = config;
  const seen = seePictures(net, "vision_model.vision_model", pictures, vision);
  const embeddings = linear(net, "visual_projection", seen, width, { bias: false });
  const own = normalized(embeddings);
  const score = (name: string, rows: number) => {
    const plain = (part: string, shape: readonly number[]) =>
      net.parameter({
        ...{ name: part, shape, order: "plain", init: "ones", isTrained: false },
      });
    const vectors = plain(name, [rows, width]), thresholds = plain(`${name}_weights`, [rows]);
    return sub(product(own, normalized(vectors)), thresholds);
  };
  return {
    embeddings,
    concepts: score("concept_embeds", CONCEPTS),
    special: score("special_care_embeds", SPECIAL),
  };
}

/** The class of networks. */
export const safetyChecker: NetworkMaker<SafetyCheckerConfig> = defineNetwork({
  className: SAFETY_CHECKER,
  parse(fields) {
    const what = `configuration of a ${SAFETY_CHECKER}`,
      { vision_config_dict: former, ...rest } = givenFields(fields);
    const vision = former ?? rest.vision_config ?? {};
    // Where a former name is there, transformers believes it.
    const given = typeof vision === "object" ? givenFields(vision as Fields) : vision;
    return parseWith(schema, { ...rest, vision_config: given }, what);
  },
  format: (config) => ({ architectures: [SAFETY_CHECKER], ...config }),
  resize: () => ({}),
  build: (config) => ({
    kind: "safety checker",
    itemShape: [config.vision_config.image_size, config.vision_config.image_size, 3],
    forward: (forward, pictures) => check(config, forward, pictures),
  }),
});
registerNetwork(safetyChecker);

/**
 * The safety checker of a configuration.
 *
 * @param fields As in the `config.json` of a `StableDiffusionSafetyChecker` of diffusers.
 * @throws {InputError} If it is of another class, or a field is out of range or contradicts another.
 *
 * @example The one of Stable Diffusion 1
 * ```ts
 * import { parseSafetyChecker } from "@x/ddpm";
 *
 * const { layout, itemShape } = parseSafetyChecker({
 *   architectures: ["StableDiffusionSafetyChecker"],
 *   projection_dim: 768,
 *   vision_config: { hidden_size: 1024, intermediate_size: 4096, num_attention_heads: 16,
 *     num_hidden_layers: 24, patch_size: 14 },
 * });
 * console.log(itemShape, layout.count); // [224, 224, 3], 303981588
 * ```
 */
export function parseSafetyChecker(fields: unknown): SafetyCheckerNetwork {
  const network = networkOf(fields, SAFETY_CHECKER);
  if (network.kind === "safety checker") return network;
  throw new InputError(
    `Cannot check pictures with a network of class ${network.className}: it is a ${network.kind}; ` +
      `a ${SAFETY_CHECKER} does that`,
  );
}
