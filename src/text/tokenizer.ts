/**
 * What all tokenizers have.
 *
 * @module
 */

/** A text as a text encoder takes it. */
export interface TokenizedText {
  /** As many as the encoder has positions, those of padding included. */
  readonly ids: Int32Array<ArrayBuffer>;
  /**
   * What had no place, from the end of the text; empty where everything had. Of CLIP it is in lower
   * case, with single spaces.
   */
  readonly cut: string;
}

/** Turns texts into tokens. */
export interface Tokenizer {
  /** How many tokens it makes of every text. */
  readonly length: number;
  /** Ids are below this. */
  readonly vocabulary: number;
  /** The tokens of a text. */
  encode(text: string): TokenizedText;
}
