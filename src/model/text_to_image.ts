/**
 * What paints pictures of texts: the pieces of a latent diffusion model.
 *
 * @module
 */

import type { Tokenizer } from "../text/tokenizer.ts";
import type { Model } from "./model.ts";
import type { ClipImageProcessor } from "./clip_image_processor.ts";
import type { AutoencoderNetwork, SafetyCheckerNetwork } from "./network.ts";
import type { TextEncoderNetwork } from "./text_encoder.ts";
import type { Weighted } from "./weights.ts";

/** What looks at pictures before they are shown. */
export interface SafetyChecker extends Weighted<SafetyCheckerNetwork> {
  /** How pictures are prepared for it. */
  readonly processor: ClipImageProcessor;
}

/** The pieces of a model that paints texts, as Stable Diffusion is one. */
export interface TextToImageModel {
  /** What denoises latents, told the states of a text; its scheduler is the pipeline's. */
  readonly denoiser: Model;
  /** What reads texts. */
  readonly textEncoder: Weighted<TextEncoderNetwork>;
  /** What makes tokens of texts for it. */
  readonly tokenizer: Tokenizer;
  /** What makes latents of pictures, and pictures of latents. */
  readonly autoencoder: Weighted<AutoencoderNetwork>;
  /** What looks at pictures before they are shown, if the model has it. */
  readonly safetyChecker?: SafetyChecker;
}
