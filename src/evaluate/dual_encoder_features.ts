/**
 * Features that pictures and texts have in common: the embeddings of a dual encoder, trained by
 * `ddpm train --config dual-encoder`.
 *
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { input } from "../gpu/tensor.ts";
import { dualEncoderNetwork } from "../model/dual_encoder.ts";
import type { DualEncoderModel } from "../model/model.ts";
import { Mutex } from "../mutex.ts";
import type { FeatureExtractor } from "./feature_extractor.ts";
import { compileForward, networkFeatures } from "./network_features.ts";

/** Settings of {@linkcode dualEncoderFeatures}. */
export interface DualEncoderFeaturesOptions {
  /** What the extractor is called. @default {"dual encoder"} */
  readonly name?: string;
  /** Pictures, or texts, that are computed together. @default {64} */
  readonly batchSize?: number;
}

/** What sees features in pictures, and the same in texts. */
export interface TextFeatureExtractor extends FeatureExtractor {
  /**
   * Features of texts, `[texts.length, width]`: the nearer to those of a picture, the better the text
   * says what the picture shows.
   *
   * @throws The signal's reason, if it is aborted.
   */
  extractTexts(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array<ArrayBuffer>>;
}

/**
 * Compiles a dual encoder. Its features are embeddings of length 1, so that distances are in the order
 * of cosines.
 *
 * @throws {InputError} If the model is none.
 * @throws {DeviceError} If it does not fit the device.
 *
 * @example
 * ```ts
 * import { dualEncoderNetwork, initializeNetwork, openDevice, parseNetwork } from "@x/ddpm";
 * import { dualEncoderFeatures } from "@x/ddpm/evaluate";
 *
 * const network = parseNetwork({ _class_name: "DualEncoder", sample_size: 8 });
 * const model = { ...initializeNetwork(dualEncoderNetwork(network), 0), card: {} };
 * using device = await openDevice("cpu");
 * using extractor = await dualEncoderFeatures(device, model);
 * console.log((await extractor.extractTexts(["red heart", "cat"])).length); // 2 times 64
 * ```
 */
export async function dualEncoderFeatures(
  device: Device,
  model: DualEncoderModel,
  { name = "dual encoder", batchSize = 64 }: DualEncoderFeaturesOptions = {},
): Promise<TextFeatureExtractor> {
  const { encodeItems, encodeTexts, tokens: { shape: [each] }, tokenize, width } =
    dualEncoderNetwork(model.network);
  using stack = new DisposableStack();
  const pictures = stack.use(
    await networkFeatures(
      ...[device, model, { name, batchSize }] as const,
      (forward, pictures) => ({ features: encodeItems(forward, pictures) }),
    ),
  );
  const ids = input("tokens", [batchSize, each], "i32");
  const reader = stack.use(
    await compileForward(device, model, (forward) => ({ features: encodeTexts(forward, ids) })),
  );
  const { tokens, features } = reader.buffers, turns = new Mutex(), owned = stack.move();
  return {
    ...pictures,
    async extractTexts(texts, signal) {
      using _turn = await turns.acquire();
      const found = new Float32Array(texts.length * width);
      for (let first = 0; first < texts.length; first += batchSize) {
        signal?.throwIfAborted();
        const some = texts.slice(first, first + batchSize),
          rows = new Int32Array(some.length * each);
        some.forEach((text, i) => rows.set(tokenize(text), i * each));
        tokens.write(rows);
        reader.run();
        found.set(await features.read(0, some.length * width), first * width);
      }
      return found;
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}
