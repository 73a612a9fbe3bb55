/**
 * Networks for tests: small ones, and those of the DDPM paper.
 *
 * @module
 */

import { initializeModel, type LoadedModel } from "../src/model/model.ts";
import {
  type ClassifierNetwork,
  type DenoisingNetwork,
  type Network,
  parseNetwork,
} from "../src/model/network.ts";
import { classifierNetwork } from "../src/model/classifier.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { Random } from "./random.ts";

/** A network of two resolutions with attention, for grey images of 8 x 8; fields as in files. */
export function smallNetwork(fields: Readonly<Record<string, unknown>> = {}): DenoisingNetwork {
  const network = parseNetwork({
    ...{ sample_size: 8, in_channels: 1, out_channels: 1, layers_per_block: 1 },
    ...{ block_out_channels: [8, 16], norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
    ...fields,
  });
  return denoisingNetwork({ network });
}

/** The smallest network there is: one resolution, no attention, few kernels to compile. */
export function tinyNetwork(fields: Readonly<Record<string, unknown>> = {}): DenoisingNetwork {
  return smallNetwork({
    ...{ block_out_channels: [8], add_attention: false },
    ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] },
    ...fields,
  });
}

/** The smallest network that enlarges pictures, grey ones to 8 x 8 by 2. */
export const tinyUpscaler = (fields: Readonly<Record<string, unknown>> = {}): DenoisingNetwork =>
  tinyNetwork({ _class_name: "SuperResolutionUNet2DModel", factor: 2, ...fields });

/** A classifier of grey images of 8 x 8 with attention; fields as in files. */
export function smallClassifier(
  fields: Readonly<Record<string, unknown>> = {},
): ClassifierNetwork {
  const network = parseNetwork({
    ...{ _class_name: "UNet2DClassifier", sample_size: 8, in_channels: 1, num_classes: 3 },
    ...{ layers_per_block: 1, block_out_channels: [8, 16], norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    ...fields,
  });
  return classifierNetwork({ network });
}

/** A model that does not predict zero, as a fresh one would: all weights are random. */
export function randomModel(network: Network, schedule: unknown = {}): LoadedModel {
  const model = initializeModel(network, schedule, 1), random = new Random("weights");
  const parameters = model.parameters.map((x) => x + random.between(-0.2, 0.2));
  return { ...model, parameters };
}

const paper = {
  ...{ in_channels: 3, out_channels: 3, layers_per_block: 2, norm_eps: 1e-6 },
  ...{ downsample_padding: 0, flip_sin_to_cos: false, freq_shift: 1, attention_head_dim: null },
};

/** The networks of Ho et al. 2020 for CIFAR-10 and for 256 x 256 pixels, as files say it. */
export const paperConfigs = {
  "ddpm-cifar10-32": {
    ...paper,
    sample_size: 32,
    block_out_channels: [128, 256, 256, 256],
    down_block_types: ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
  },
  "ddpm-256": {
    ...paper,
    sample_size: 256,
    block_out_channels: [128, 128, 256, 256, 512, 512],
    down_block_types: Array.from({ length: 6 }, (_, i) => `${i === 4 ? "Attn" : ""}DownBlock2D`),
    up_block_types: Array.from({ length: 6 }, (_, i) => `${i === 1 ? "Attn" : ""}UpBlock2D`),
  },
};
