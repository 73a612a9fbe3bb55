/**
 * What a training tells its network of a batch beside the items: classes and captions, which are left
 * out at times, as guidance without a classifier needs it.
 *
 * @module
 */

import type { Batch } from "../data/batches.ts";
import type { Dataset } from "../data/dataset.ts";
import type { TensorBuffer } from "../gpu/device.ts";
import { philox, seedWords, toInteger, toUniform } from "../gpu/philox.ts";
import { toldOf, type TrainableNetwork } from "../model/network.ts";
import { sizeOf } from "../shape.ts";
import type { TrainingConfig } from "./config.ts";

/** Keeps the dropping of labels apart from everything else that is drawn from a seed. */
const LABEL_STREAM = 0x1abe;

/** The buffers of a program, by the names of its inputs. */
type Buffers = Readonly<Record<string, TensorBuffer>>;

/** Where in a training a batch is. */
export interface BatchPlace {
  /** The step, from 0. */
  readonly step: number;
  /** Which image of the step the first of the batch is. */
  readonly first: number;
}

/** Writes classes and captions of batches. */
export class ConditionFeed {
  readonly #network: TrainableNetwork;
  readonly #data: Dataset;
  readonly #told: ReturnType<typeof toldOf>;
  readonly #config: Pick<TrainingConfig, "labelDropout" | "seed">;

  constructor(network: TrainableNetwork, data: Dataset, config: TrainingConfig) {
    this.#network = network;
    this.#data = data;
    this.#told = toldOf(network, data.shape);
    this.#config = config;
  }

  /** What a step is told; `undefined` for an evaluation, where nothing is left to chance. */
  write(buffers: Buffers, { labels, indices }: Batch, place: BatchPlace | undefined): void {
    if (!buffers.labels && !buffers.tokens) return;
    const { labels: classes, tokens } = this.#told;
    const draws = place && Array.from(labels, (_, i) => this.#draw(place.step, place.first + i));
    if (buffers.labels) {
      const none = (classes?.below ?? 0) - 1;
      buffers.labels.write(labels.map((label, i) => draws?.[i].isDropped ? none : label));
    }
    if (!buffers.tokens || !("tokenize" in this.#network)) return;
    const { tokenize } = this.#network, each = sizeOf(tokens.shape);
    const captions = Array.from(indices, (index) => this.#data.captions![index]);
    const chosen = captions.map((all, i) => all[toInteger(draws?.[i].word ?? 0, all.length)]);
    const rows = new Int32Array(labels.length * each).fill(tokens.none ?? 0);
    chosen.forEach((text, i) => {
      if (!draws?.[i].isDropped) rows.set(tokenize!(text), i * each);
    });
    buffers.tokens.write(rows);
    buffers.said?.write(
      captions.flatMap((all) => chosen.map((text) => Number(all.includes(text)))),
    );
  }

  /** Whether an image of the step is shown without its class and caption, and which caption it has. */
  #draw(step: number, image: number): { readonly isDropped: boolean; readonly word: number } {
    const { labelDropout, seed } = this.#config, words = new Uint32Array(4);
    const [low, high] = seedWords(seed);
    philox([0, image, step, LABEL_STREAM], [low, high], words);
    return { isDropped: toUniform(words[0]) < labelDropout, word: words[1] };
  }
}
