/**
 * What dual encoders learn, in a step of training.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import { add, map, mul, neg } from "../gpu/ops/map.ts";
import { matmul } from "../gpu/ops/matmul.ts";
import { sum } from "../gpu/ops/sum.ts";
import { reshape, transpose } from "../gpu/ops/view.ts";
import { constant, type Tensor } from "../gpu/tensor.ts";
import { logSoftmax, oneHot } from "../model/classifier.ts";
import type { DualEncoderNetwork } from "../model/dual_encoder.ts";
import type { ParameterSource } from "../model/parameters.ts";
import type { Batch } from "./objective.ts";

/** The texts of a batch, of each item one. */
export interface BatchTexts {
  /** `i32` `[batch, n]`. */
  readonly tokens: Tensor;
  /** 1 where the text of a column is said of the item of a row, also by chance, `[batch, batch]`. */
  readonly said: Tensor;
}

/** How a dual encoder does on a batch. */
export interface Contrast {
  /** The cross entropy of each item and its text, the mean of both ways, `[batch]`, in nats. */
  readonly losses: Tensor;
  /** 1 for each item whose own text is the nearest, `[batch]`. */
  readonly correct: Tensor;
}

/** The logit of what must not count; its exponential is 0 beside any other. */
const NEVER = -1e4;

/**
 * The symmetric cross entropy of InfoNCE (van den Oord et al. 2018, Radford et al. 2021): of each item
 * among all texts to find its own, and of each text its own among all items. What is said of an item is
 * no wrong answer, whichever item of the batch it was chosen for, and is left out: two pictures of a
 * batch may well have a name or a kind in common.
 *
 * @param logits `[batch, batch]`, a row for each item and a column for each text.
 * @param said 1 where the text of a column is said of the item of a row, as on the diagonal, else 0;
 * `[batch, batch]`.
 *
 * @example As of a network that cannot tell two pictures apart
 * ```ts
 * import { contrastiveLoss, openDevice } from "@x/ddpm";
 * import { constant, makeGraph } from "@x/ddpm/tensor";
 *
 * const { losses } = contrastiveLoss(constant([7, 7, 7, 7], [2, 2]), constant([1, 0, 0, 1], [2, 2]));
 * using device = await openDevice("cpu");
 * using program = await device.compile(makeGraph({ losses }));
 * program.run();
 * console.log(await program.buffers.losses.read()); // the logarithm of 2, twice
 * ```
 */
export function contrastiveLoss(logits: Tensor, said: Tensor): Contrast {
  const [count] = logits.shape;
  const isOwn = oneHot(constant(Int32Array.from({ length: count }, (_, i) => i)), count);
  const used = map(
    [logits, said, isOwn],
    (x, said, own) => e.select(e.mul(said, e.sub(1, own)), NEVER, x),
  );
  const ofOwn = (x: Tensor) => sum(mul(x, isOwn), [1]);
  const nats = (x: Tensor) => neg(ofOwn(logSoftmax(x)));
  const better = sum(map([ofOwn(used), used], e.less), [1]);
  return {
    losses: reshape(mul(add(nats(used), nats(transpose(used))), 0.5), [count]),
    correct: reshape(map([better], (n) => e.sub(1, e.min(n, 1))), [count]),
  };
}

/** What a dual encoder makes of items and their texts. */
export function contrasting(
  network: DualEncoderNetwork,
  parameter: ParameterSource,
  { images }: Pick<Batch, "images">,
  { tokens, said }: BatchTexts,
): Contrast {
  const forward = { parameter }, texts = network.encodeTexts(forward, tokens);
  const cosines = matmul(network.encodeItems(forward, images), transpose(texts));
  return contrastiveLoss(mul(cosines, network.scale(forward)), said);
}
