/**
 * The UNets of latent diffusion and Stable Diffusion as their own code saves them (CompVis's `ldm`),
 * alone in a file: where they lie, what their blocks are called in diffusers, and the configuration
 * that shapes tell.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import type { FileTensor } from "../../formats/safetensors.ts";
import type { Fields } from "../network.ts";
import { formatUNetConditionConfig, parseUNetConditionConfig } from "../unet_condition_config.ts";
import {
  agree,
  below,
  countOf,
  type Family,
  type FamilyMember,
  type NameTable,
  rename,
  sizeIn,
  type TensorMap,
} from "./family.ts";

/** Where the network may be in a file, and below which the names of its average have no dots. */
const PLACES = ["state_dict.model.diffusion_model.", "model.diffusion_model.", ""];
const averageOf = (place: string) =>
  place.replace(/model\.diffusion_model\.$/, "model_ema.diffusion_model");

/** What is in files of whole pipelines beside the network. */
const OTHER_PIECES = /^(state_dict\.)?(first_stage_model|cond_stage_model|conditioner)\./;

/** The transformers without which a network is of another class. */
const CROSS_ATTENTION = "middle_block.1.transformer_blocks.0.attn2.to_k.weight";

/** Layers within blocks; those of transformers have the same names. */
const layers: NameTable = [
  [/^time_embed\.0\./, "time_embedding.linear_1."],
  [/^time_embed\.2\./, "time_embedding.linear_2."],
  [/^label_emb\.0\.0\./, "class_embedding.linear_1."],
  [/^label_emb\.0\.2\./, "class_embedding.linear_2."],
  [/^label_emb\.weight$/, "class_embedding.weight"],
  [/^out\.0\./, "conv_norm_out."],
  [/^out\.2\./, "conv_out."],
  [/(\.resnets\.\d+)\.in_layers\.0\./, "$1.norm1."],
  [/(\.resnets\.\d+)\.in_layers\.2\./, "$1.conv1."],
  [/(\.resnets\.\d+)\.emb_layers\.1\./, "$1.time_emb_proj."],
  [/(\.resnets\.\d+)\.out_layers\.0\./, "$1.norm2."],
  [/(\.resnets\.\d+)\.out_layers\.3\./, "$1.conv2."],
  [/(\.resnets\.\d+)\.skip_connection\./, "$1.conv_shortcut."],
];

/** Heads where nothing tells them: those of Stable Diffusion 1, and the width of those of 2. */
const USUAL_HEADS = 8, USUAL_WIDTH = 64;
const USUAL_GROUPS = 32;

/** The noise of Stable Diffusion. */
export const ldmSchedule: Fields = {
  ...{ num_train_timesteps: 1000, beta_schedule: "scaled_linear", beta_start: 0.00085 },
  ...{ beta_end: 0.012, prediction_type: "epsilon", clip_sample: false, steps_offset: 1 },
  set_alpha_to_one: false,
};

/** A network in a file. */
export interface LdmUnet {
  /** Its tensors by the names of `ldm`, without what all names begin with. */
  readonly tensors: TensorMap;
  /** Which weights these are, a clause. */
  readonly weightSource: string;
}

/**
 * The network in a file, by its moving average where that is complete.
 *
 * @param mark A tensor that tells its kind; by default that of networks that read texts.
 * @returns `undefined` if there is none.
 */
export function findLdmUnet(tensors: TensorMap, mark = CROSS_ATTENTION): LdmUnet | undefined {
  const place = PLACES.find((place) => tensors.has(place + mark));
  if (place === undefined) return undefined;
  const own = below(tensors, place), prefix = averageOf(place);
  const average = new Map<string, FileTensor>();
  for (const name of place ? own.keys() : []) {
    const tensor = tensors.get(prefix + name.replaceAll(".", ""));
    if (tensor) average.set(name, tensor);
  }
  if (average.size === own.size) {
    return { tensors: average, weightSource: "the moving average of the weights was taken" };
  }
  const why = average.size
    ? `is not complete: it lacks ${own.size - average.size} of ${own.size} tensors`
    : "is not in the file, which may have its numbers as the weights";
  return { tensors: own, weightSource: `a moving average ${why}` };
}

/** What the blocks of a network are. */
interface Blocks {
  /** The names of blocks there and here. */
  readonly places: ReadonlyMap<string, string>;
  /** Of each level: channels, residual blocks, layers of transformers, and where these are. */
  readonly widths: readonly number[];
  readonly counts: readonly number[];
  readonly depths: readonly number[];
  readonly isDownAttended: readonly boolean[];
  readonly isUpAttended: readonly boolean[];
}

const depthAt = (net: TensorMap, block: string) => countOf(net, `${block}.transformer_blocks.*.`);

/** Numbers all blocks as `ldm` does, in the order of the way down, then up. */
function blocksOf(net: TensorMap): Blocks {
  const places = new Map([["input_blocks.0.0", "conv_in"]]);
  const widths: number[] = [], counts: number[] = [], depths: number[] = [];
  const isDownAttended: boolean[] = [], isUpAttended: boolean[] = [];
  const inputs = countOf(net, "input_blocks.*.");
  for (let i = 1, level = 0; i < inputs; i++) {
    const block = `input_blocks.${i}`, here = `down_blocks.${level}`;
    if (net.has(`${block}.0.op.weight`)) {
      places.set(`${block}.0.op`, `${here}.downsamplers.0.conv`);
      level++;
      continue;
    }
    const layer = counts[level] ?? 0, depth = depthAt(net, `${block}.1`);
    places.set(`${block}.0`, `${here}.resnets.${layer}`);
    places.set(`${block}.1`, `${here}.attentions.${layer}`);
    widths[level] = sizeIn(net, `${block}.0.out_layers.3.weight`, 0);
    counts[level] = layer + 1;
    depths[level] = Math.max(depths[level] ?? 0, depth);
    isDownAttended[level] = depth > 0;
  }
  const last = counts.length - 1;
  for (let level = last, block = 0; level >= 0; level--) {
    const here = `up_blocks.${last - level}`;
    for (let layer = 0; layer <= counts[level]; layer++, block++) {
      const there = `output_blocks.${block}`, depth = depthAt(net, `${there}.1`);
      places.set(`${there}.0`, `${here}.resnets.${layer}`);
      if (depth) places.set(`${there}.1`, `${here}.attentions.${layer}`);
      places.set(`${there}.${depth ? 2 : 1}.conv`, `${here}.upsamplers.0.conv`);
      depths[level] = Math.max(depths[level], depth);
      isUpAttended[level] = depth > 0;
    }
  }
  ["resnets.0", "attentions.0", "resnets.1"].forEach((here, i) =>
    places.set(`middle_block.${i}`, `mid_block.${here}`)
  );
  depths[last] = depthAt(net, "middle_block.1");
  return { places, widths, counts, depths, isDownAttended, isUpAttended };
}

/** What the tensors tell of the configuration, with diffusers' names. */
function fieldsOf(net: TensorMap, blocks: Blocks): Fields {
  const { widths, counts, depths, isDownAttended, isUpAttended } = blocks;
  const time = sizeIn(net, "input_blocks.1.0.emb_layers.1.weight", 0);
  const isLinear = net.get("middle_block.1.proj_in.weight")?.shape.length === 2;
  return {
    in_channels: sizeIn(net, "input_blocks.0.0.weight", 1),
    out_channels: sizeIn(net, "out.2.weight", 0),
    ...{ block_out_channels: widths, layers_per_block: counts },
    down_block_types: isDownAttended.map((has) => has ? "CrossAttnDownBlock2D" : "DownBlock2D"),
    up_block_types: isUpAttended.map((has) => has ? "CrossAttnUpBlock2D" : "UpBlock2D").reverse(),
    transformer_layers_per_block: depths.map((depth) => depth || 1),
    cross_attention_dim: sizeIn(net, CROSS_ATTENTION, 1),
    use_linear_projection: isLinear,
    resnet_time_scale_shift: time === 2 * widths[0] ? "scale_shift" : "default",
    ...(net.has("label_emb.weight")
      ? { num_class_embeds: sizeIn(net, "label_emb.weight", 0) }
      : {}),
    ...(net.has("label_emb.0.0.weight")
      ? {
        class_embed_type: "projection",
        projection_class_embeddings_input_dim: sizeIn(net, "label_emb.0.0.weight", 1),
      }
      : {}),
  };
}

/** A network with the names of diffusers. */
export interface RenamedUnet {
  /** As in its `config.json`. */
  readonly network: Fields;
  /** Its tensors. */
  readonly tensors: TensorMap;
  /** What was taken for granted: clauses. */
  readonly guesses: readonly string[];
}

/**
 * The network of `ldm` as one of diffusers.
 *
 * @param net What {@linkcode findLdmUnet} found.
 * @param given What is known beside it, with the names of diffusers: heads and groups, the size.
 * @throws {InputError} If tensors are missing, or contradict that.
 */
export function renameLdmUnet(net: TensorMap, given: Fields): RenamedUnet {
  const blocks = blocksOf(net);
  if (!blocks.widths.length) throw new InputError("it has no residual blocks on the way down");
  const told = fieldsOf(net, blocks), { widths } = blocks;
  const hasHeads = ["attention_head_dim", "num_attention_heads"].some((name) =>
    given[name] != null
  );
  const isNarrow = told.use_linear_projection && widths.every((width) => width % USUAL_WIDTH === 0);
  const guessed: Fields = {
    attention_head_dim: isNarrow ? widths.map((width) => width / USUAL_WIDTH) : USUAL_HEADS,
    norm_num_groups: USUAL_GROUPS,
  };
  const { attention_head_dim: heads, ...others } = guessed;
  const known = { ...others, ...(hasHeads ? {} : { attention_head_dim: heads }), ...given };
  const mine = formatUNetConditionConfig(parseUNetConditionConfig({ ...known, ...told }));
  const theirs = formatUNetConditionConfig(parseUNetConditionConfig({ ...told, ...known }));
  agree(theirs, Object.fromEntries(Object.keys(told).map((name) => [name, mine[name]])));
  const places: NameTable = [[
    /^((?:input|output)_blocks\.\d+\.\d+(?:\.op|\.conv)?|middle_block\.\d+)(?=\.)/,
    (block) => blocks.places.get(block) ?? block,
  ]];
  const tells = "a config.json beside it can tell";
  return {
    network: { _class_name: "UNet2DConditionModel", ...mine },
    tensors: rename(net, [...places, ...layers]),
    guesses: [
      ...(hasHeads ? [] : [
        `its attention has ${
          isNarrow ? `heads of ${USUAL_WIDTH}` : `${USUAL_HEADS} heads`
        }, as in Stable Diffusion ${isNarrow ? 2 : 1}; ${tells} attention_head_dim`,
      ]),
      ...(given.norm_num_groups != null
        ? []
        : [`its normalisations have ${USUAL_GROUPS} groups; ${tells} norm_num_groups`]),
    ],
  };
}

const configSchema = z.record(z.string(), z.unknown());

function read(tensors: TensorMap, config: unknown): FamilyMember {
  const what = "configuration of a UNet of latent diffusion";
  const all = parseWith(configSchema, config, what);
  const given = all.unet === undefined ? all : parseWith(configSchema, all.unet, what);
  const { tensors: net, weightSource } = findLdmUnet(tensors)!;
  return {
    ...renameLdmUnet(net, given),
    schedule: ldmSchedule,
    scheduleSource: "the noise and what is predicted are those of Stable Diffusion 1",
    weightSource,
  };
}

/** The family of files with the network alone. */
export const ldmUnet: Family = {
  name: "CompVis/latent-diffusion, the UNet alone",
  recognizes: (tensors) =>
    PLACES.some((place) => tensors.has(place + CROSS_ATTENTION)) &&
    ![...tensors.keys()].some((name) => OTHER_PIECES.test(name)),
  read,
};
