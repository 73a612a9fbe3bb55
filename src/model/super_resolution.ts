/**
 * A network that enlarges pictures: a UNet that sees a picture of low resolution beside the noisy one
 * (SR3, Saharia et al. 2021), and is told how much noise was added to it, so that it need not believe
 * every pixel of what another model made (noise conditioning augmentation: Ho et al., "Cascaded
 * diffusion models", 2021; Imagen, Saharia et al. 2022).
 *
 * Its conditions are `low_resolution`, the picture in its own size, noise included, which must be
 * given; and `noise_level` s, 0 for none: what is shown of a picture y is √(1 - s²) y + s ε. The UNet
 * has the pixels of it, repeated, as further channels of its input.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../config.ts";
import { InputError } from "../errors.ts";
import * as e from "../gpu/expression.ts";
import { concat } from "../gpu/ops/concat.ts";
import { map, mul } from "../gpu/ops/map.ts";
import { randomNormal, type RandomState, randomUniform } from "../gpu/ops/random.ts";
import { averagePool, upsampleNearest } from "../gpu/ops/resample.ts";
import { broadcastTo } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { perItem } from "../diffusion/items.ts";
import type { Conditions } from "../diffusion/denoiser.ts";
import type { Shape } from "../shape.ts";
import { embeddingMlp } from "./layers.ts";
import { defineNetwork, type NetworkMaker, registerNetwork } from "./network.ts";
import { sinusoidalEmbedding } from "./time_embedding.ts";
import { unet, unet2d, unetConditions } from "./unet.ts";
import { formatUNetConfig, parseUNetConfig, type UNetConfig, unetSchema } from "./unet_config.ts";

/** The architecture of a network that enlarges pictures. */
export interface SuperResolutionConfig {
  /** Of the UNet; its channels are those of pictures, without those it is shown beside them. */
  readonly unet: UNetConfig;
  /** How many times as wide and high the result is. */
  readonly factor: number;
}

const factorSchema = z.int().min(2).max(16);
/** Of the fields as they are in files. */
export const superResolutionSchema = unetSchema.extend({ factor: factorSchema });

/** What the class of networks is called in files. */
export const SUPER_RESOLUTION = "SuperResolutionUNet2DModel";

/** The most noise that training adds to pictures of low resolution, as its standard deviation. */
export const MAX_NOISE_LEVEL = 0.5;
/** The share of them that it adds none to, which is how other people's pictures are enlarged. */
const CLEAN_SHARE = 1 / 6;
/** Streams of random numbers of training: levels, and the noise. */
const LEVEL_STREAM = 50, NOISE_STREAM = 51;
/** What levels are multiplied by, for sinusoids that are made for timesteps. */
const TIMESTEPS = 1000;

/** The noise levels of a batch, `[batch]`: often 0, or any up to the most. */
function drawLevels(items: Tensor, random?: RandomState): Tensor {
  if (!random) return broadcastTo(constant([0]), [items.shape[0]]);
  const scale = MAX_NOISE_LEVEL / (1 - CLEAN_SHARE);
  return map(
    [randomUniform([items.shape[0]], random, LEVEL_STREAM)],
    (u) => e.max(0, e.mul(scale, e.sub(u, CLEAN_SHARE))),
  );
}

/** The items in low resolution, means of squares of pixels, with noise. */
function degrade(items: Tensor, factor: number, random?: RandomState): Tensor {
  const clean = averagePool(items, factor);
  if (!random) return clean;
  const noise = randomNormal(clean.shape, random, NOISE_STREAM);
  return map(
    [clean, noise, perItem(drawLevels(items, random), 3)],
    (y, z, s) => e.add(e.mul(e.sqrt(e.sub(1, e.mul(s, s))), y), e.mul(s, z)),
  );
}

/** @throws {InputError} If pictures of this shape cannot be reduced. */
function conditions({ unet, factor }: SuperResolutionConfig, item: Shape): Conditions {
  const [height, width, channels] = item;
  if (height % factor || width % factor) {
    throw new InputError(
      `A network that enlarges by ${factor} is for sides that are multiples of ${factor}, not for ` +
        `${width}x${height}`,
    );
  }
  return {
    ...unetConditions(unet),
    low_resolution: { shape: [height / factor, width / factor, channels], dtype: "f32" },
    noise_level: { shape: [], dtype: "f32", none: 0 },
  };
}

const greatestDivisor = (a: number, b: number): number => b ? greatestDivisor(b, a % b) : a;

/** The class of networks. */
export const superResolution: NetworkMaker<SuperResolutionConfig> = defineNetwork({
  className: SUPER_RESOLUTION,
  parse({ factor, ...fields }) {
    return {
      unet: parseUNetConfig(fields),
      factor: parseWith(factorSchema, factor, "factor of a super-resolution network"),
    };
  },
  format: ({ unet, factor }) => ({ ...formatUNetConfig(unet), factor }),
  resize: unet2d.resize,
  build(config) {
    const { unet: own, factor } = config, halvings = 2 ** (own.blockOutChannels.length - 1);
    const inner: UNetConfig = { ...own, inChannels: 2 * own.inChannels };
    return {
      kind: "denoiser",
      itemShape: [...(own.sampleSize ?? [null, null]), own.inChannels],
      multiple: halvings * factor / greatestDivisor(halvings, factor),
      outChannels: own.outChannels,
      factor,
      hasDropout: own.dropout > 0,
      conditions: (item) => conditions(config, item),
      derived: {
        low_resolution: (items, random) => degrade(items, factor, random),
        noise_level: drawLevels,
      },
      forward(forward, { sample, timestep, conditions }) {
        const { low_resolution: low, noise_level: level } = conditions;
        const shown = concat([sample, upsampleNearest(low, factor)], 3);
        const { freqShift, flipSinToCos, blockOutChannels: [channels] } = own;
        return unet(inner, forward, { sample: shown, timestep, conditions }, (net) => {
          const times = mul(level, TIMESTEPS);
          const sinusoids = sinusoidalEmbedding(times, channels, freqShift, flipSinToCos);
          return embeddingMlp(net, "noise_level_embedding", sinusoids, 4 * channels);
        });
      },
    };
  },
});
registerNetwork(superResolution);
