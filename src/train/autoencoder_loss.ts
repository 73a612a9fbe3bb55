/**
 * What autoencoders learn from: how far a picture is from what becomes of it, and what keeps its
 * latents together.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { add, map, mul, square, sub } from "../gpu/ops/map.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { mean, sum } from "../gpu/ops/sum.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { AutoencoderNetwork, Encoded, Forward } from "../model/network.ts";

/** Settings of the loss. */
export interface AutoencoderLossConfig {
  /** How far pictures are apart: by absolute or by squared differences. @default {"l1"} */
  readonly reconstruction?: "l1" | "l2";
  /** Weight of the divergence from standard normals. @default {1e-6} */
  readonly klWeight?: number;
  /** Weight of the loss of the codebook. @default {1} */
  readonly codebookWeight?: number;
}

/** What a loss consists of, scalars. */
export interface AutoencoderLoss {
  /** The weighted sum. */
  readonly loss: Tensor;
  /** Summed over the numbers of a picture, and the mean of a batch; the mean with a codebook. */
  readonly reconstruction: Tensor;
  /** The divergence, summed and averaged alike, or the loss of the codebook. */
  readonly penalty: Tensor;
  /** What became of the pictures. */
  readonly decoded: Tensor;
}

/** The stream of random numbers that latents are drawn by. */
const STREAM = 61;

/**
 * KL divergence from standard normals of normals `[batch, height, width, channels]`,
 * ½ Σ (μ² + σ² - 1 - ln σ²) in nats: `[batch, 1, 1, 1]`.
 *
 * @example
 * ```ts
 * import { divergence, openDevice } from "@x/ddpm";
 * import { constant, makeGraph } from "@x/ddpm/tensor";
 *
 * const mean = constant([1, 1], [1, 1, 1, 2]), logVariance = constant([0, 0], [1, 1, 1, 2]);
 * using device = await openDevice("cpu");
 * using program = await device.compile(makeGraph({ kl: divergence({ mean, logVariance }) }));
 * program.run();
 * console.log(await program.buffers.kl.read()); // [1]
 * ```
 */
export function divergence({ mean, logVariance }: Required<Encoded>): Tensor {
  const each = map(
    [mean, logVariance],
    (m, v) => e.sub(e.sub(e.add(e.mul(m, m), e.exp(v)), 1), v),
  );
  return mul(sum(each, [1, 2, 3]), 0.5);
}

/**
 * The loss of pictures `[batch, height, width, channels]`.
 *
 * With normals, both terms are summed over all numbers of a picture and averaged over the batch, as in
 * latent diffusion, so that its weight of 1e-6 fits here; latents are drawn. With a codebook both are
 * means, as there: |x - x̂| plus the loss of the entries. There is no perceptual and no adversarial term.
 *
 * @param pictures In [-1, 1].
 * @param random What latents are drawn by; without it, they are the means.
 * @throws {InputError} If pictures are not of a size that the network can take.
 *
 * @example
 * ```ts
 * import { autoencoderLoss, autoencoderNetwork, openDevice, parseNetwork } from "@x/ddpm";
 * import { constant, makeGraph } from "@x/ddpm/tensor";
 *
 * const network = autoencoderNetwork(parseNetwork({ _class_name: "AutoencoderKL",
 *   block_out_channels: [4], norm_num_groups: 2 }));
 * const pictures = constant(new Float32Array(4 * 4 * 3), [1, 4, 4, 3]);
 * const forward = {
 *   parameter: ({ shape }: { shape: readonly number[] }) =>
 *     constant(new Float32Array(shape.reduce((n, side) => n * side, 1)), shape),
 * };
 * const { loss } = autoencoderLoss(network, forward, pictures);
 * using device = await openDevice("cpu");
 * using program = await device.compile(makeGraph({ loss }));
 * program.run();
 * console.log(await program.buffers.loss.read()); // [0]
 * ```
 */
export function autoencoderLoss(
  network: AutoencoderNetwork,
  forward: Forward,
  pictures: Tensor,
  { reconstruction: kind = "l1", klWeight = 1e-6, codebookWeight = 1 }: AutoencoderLossConfig = {},
  random?: RandomState,
): AutoencoderLoss {
  const { mean: center, logVariance } = network.encode(forward, pictures);
  const far = (decoded: Tensor) => {
    const difference = sub(pictures, decoded);
    return kind === "l2" ? square(difference) : map([difference], (x) => e.max(x, e.neg(x)));
  };
  if (logVariance) {
    const noise = random && randomNormal(center.shape, random, STREAM);
    const latents = noise
      ? map([center, logVariance, noise], (m, v, z) => e.add(m, e.mul(e.exp(e.mul(v, 0.5)), z)))
      : center;
    const decoded = network.decode(forward, latents);
    const reconstruction = mean(sum(far(decoded), [1, 2, 3]));
    const penalty = mean(divergence({ mean: center, logVariance }));
    return { loss: add(reconstruction, mul(penalty, klWeight)), reconstruction, penalty, decoded };
  }
  const { quantized, loss: penalty } = network.quantize!(forward, center);
  const decoded = network.decode(forward, quantized, true), reconstruction = mean(far(decoded));
  const loss = add(reconstruction, mul(penalty, codebookWeight));
  return { loss, reconstruction, penalty, decoded };
}
