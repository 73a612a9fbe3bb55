/**
 * What is told of a dual encoder where a model is wanted, and dual encoders by where they are.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { DualEncoderModel } from "../../model/model.ts";

/** A dual encoder, which judges pictures and paints none. */
export class FoundDualEncoder extends InputError {
  readonly model: DualEncoderModel;

  constructor(place: string, model: DualEncoderModel) {
    super(
      `Cannot use ${place} as a model: it is a dual encoder (${model.network.className}), which tells ` +
        "how well pictures and texts go together, and paints nothing; it is for eval --features",
    );
    this.model = model;
  }
}
